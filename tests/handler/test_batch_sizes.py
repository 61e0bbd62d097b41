"""A network that does not take every number of photos up to ``batchSize`` does not load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from camserve.errors import SettingsError
from camserve.pipeline import Pipeline

Load = Callable[..., Pipeline]


@pytest.mark.parametrize("compile", ["off", "auto"])
@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("first_fifteen", "the network gives scores of 15 photos for a batch of 16; accepted: "),
        ("up_to_fifteen", "the network fails on a batch of 16: ValueError: too many photos "),
    ],
)
def test_a_network_that_takes_fewer_photos_than_a_batch_is_refused(
    load_task: Load, end: str, message: str, compile: str
) -> None:
    section = {"arch_kwargs": {"end": end}, "compile": compile}
    load_task(**section, batch_size=15)
    load_task(**section, batch_size=16, batching="alone")
    with pytest.raises(SettingsError) as caught:
        load_task(**section, batch_size=16)
    assert message in str(caught.value)
    assert "--set batchSize=15, or --set handler.batching=alone" in str(caught.value)
