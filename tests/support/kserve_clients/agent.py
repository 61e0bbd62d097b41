"""The process of a client: a line of JSON tells it what to call, a line tells what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


def serve(
    call: Callable[..., Any], describe_failure: Callable[[Exception], Mapping[str, str]]
) -> None:
    """Make calls until standard input ends.

    Args:
        call: makes one; what it returns is JSON.
        describe_failure: the fields of :class:`~tests.support.kserve_clients.calls.Failure`.
    """
    # What a client prints itself is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer = {"returned": call(**json.loads(line))}
        except Exception as failure:
            answer = {"raised": dict(describe_failure(failure))}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
