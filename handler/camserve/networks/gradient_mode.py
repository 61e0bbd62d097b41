"""Records gradients through a network that switches them off in its forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class GradientsStayOn(TorchFunctionMode):
    """A context in which a network cannot switch the recording of gradients off.

    A forward under ``torch.no_grad``, ``torch.inference_mode`` or
    ``torch.set_grad_enabled(False)``, as a decorator or inside, is recorded as if it were not. Each
    call of a PyTorch function costs a few microseconds more.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one PyTorch function; a change of the recording is left out."""
        if func is torch._C._set_grad_enabled:
            return None
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.enable_grad():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))
