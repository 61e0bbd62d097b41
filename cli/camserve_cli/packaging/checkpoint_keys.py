"""What the keys of a checkpoint say of what lies under them."""

from __future__ import annotations

import re
from typing import Final

#: Names under which training keeps its own state, which holds tensors too.
_TRAINING: Final = re.compile(r"optim|sched|scaler|^amp$|^loops$|^callbacks$|^rng|^lr_", re.I)
#: Names of a running average of the weights, or of a network that is one.
_AVERAGED: Final = re.compile(
    r"(^|[._])(ema|swa|averaged?|avg|teacher|target|momentum|shadow|shadow_params)([._]|$)"
    r"|encoder_k([._]|$)|^ema|ema$",
    re.I,
)
#: Second networks that need not be an average of the first one's weights.
_COPIES: Final = (
    (re.compile(r"(^|[._])teacher", re.I), "the weights of a teacher"),
    (re.compile(r"(^|[._])target", re.I), "the weights of a target network"),
    (re.compile(r"(^|[._])(momentum|encoder_k)([._]|$)", re.I), "the weights of a momentum copy"),
)


def is_training_state(name: str) -> bool:
    """Whether a name is that of an optimizer's, a scheduler's or another state of training."""
    return bool(_TRAINING.search(name))


def is_averaged(name: str) -> bool:
    """Whether a name is that of an average of the weights (EMA, SWA, a teacher's)."""
    return bool(_AVERAGED.search(name))


def kind_of_copy(name: str) -> str:
    """What a second network beside the trained one is, by the name of its state dict."""
    for pattern, kind in _COPIES:
        if pattern.search(name):
            return kind
    return "an average of the weights"
