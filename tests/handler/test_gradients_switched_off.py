"""A network whose forward switches gradients off is explained as if it did not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from camserve.errors import SettingsError
from camserve.pipeline import Pipeline
from tests.support.color_resnet import png
from tests.support.contract import assert_replies_close
from tests.support.request_builders import json_request, single_reply
from tests.support.task_network import LABELS, stripes

Load = Callable[..., Pipeline]
PHOTOS = [png(stripes("red", "green", "black", "blue")), png(stripes("green", "blue"))]


def replies(pipeline: Pipeline) -> list[dict[str, Any]]:
    requests = [json_request(photo, target=LABELS, outputs=["map", "boxes"]) for photo in PHOTOS]
    return single_reply(pipeline, *requests)


@pytest.fixture(scope="module")
def expected(load_task: Load) -> list[dict[str, Any]]:
    return replies(load_task())


@pytest.mark.parametrize("compile", ["off", "auto"])
@pytest.mark.parametrize(
    ("mode", "where"),
    [
        *(
            (mode, where)
            for mode in ("no_grad", "inference_mode", "set_grad_enabled")
            for where in ("whole", "decorated", "trunk", "head")
        ),
        ("statement", ""),
    ],
)
def test_the_maps_are_those_of_a_network_that_leaves_gradients_on(
    load_task: Load, expected: list[dict[str, Any]], mode: str, where: str, compile: str
) -> None:
    pipeline = load_task(arch_kwargs={"mode": mode, "where": where}, compile=compile)
    assert pipeline.loaded.acceleration.compiled == (compile == "auto")
    assert_replies_close(replies(pipeline), expected)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("compile", ["off", "auto"])
@pytest.mark.parametrize("end", ["detached", "data"])
def test_a_head_that_cuts_the_gradient_is_refused(load_task: Load, end: str, compile: str) -> None:
    with pytest.raises(SettingsError, match=r"do not depend on layer 'cells'.* without detach\(\)"):
        load_task(arch_kwargs={"end": end}, compile=compile)
