"""Builds a network by its architecture: of torchvision, timm or transformers, or an import path."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from typing import Any, Final

from torch import nn
from torchvision import models

from camserve.errors import SettingsError, describe_exception
from camserve.networks.model_libraries import build_hf, build_timm, is_hf_model, is_timm_model

_CALLABLE: Final = (
    "accepted: module:callable, which gives a torch module when it is called with "
    "handler.arch_kwargs (--arch-kwargs)"
)


def build(arch: str, kwargs: Mapping[str, Any], classes: int) -> nn.Module:
    """Build a network with the weights that its constructor initializes.

    Args:
        arch: the name of a torchvision classifier, or ``timm:NAME`` where timm has a model NAME:
            these get ``classes`` and ``kwargs``. ``hf:TYPE`` where ``kwargs`` is a configuration of
            transformers of that ``model_type``. Else ``module:callable``, which gets ``kwargs``
            alone.
        kwargs: for the constructor.
        classes: the number of class scores.

    Raises:
        SettingsError: there is no such architecture, or it cannot be built.
    """
    module_name, colon, attribute = arch.partition(":")
    try:
        if not colon:
            check_is_classifier(arch)
            network = models.get_model(arch, weights=None, **{"num_classes": classes, **kwargs})
        elif is_timm_model(arch):
            network = build_timm(attribute, kwargs, classes)
        elif is_hf_model(arch, kwargs):
            network = build_hf(kwargs, classes)
        else:
            constructor: Any = importlib.import_module(module_name)
            for name in attribute.split("."):
                constructor = getattr(constructor, name)
            network = constructor(**kwargs)
    except SettingsError:
        raise
    except (Exception, SystemExit) as failure:
        # A module or constructor written by others may raise any exception; a script may exit.
        accepted = (
            _CALLABLE if colon else "accepted: handler.arch_kwargs that its constructor takes"
        )
        raise SettingsError(
            f"arch {arch!r} cannot be built: {describe_exception(failure)}{_origin(module_name)}; "
            f"{accepted}"
        ) from None
    if not isinstance(network, nn.Module):
        raise SettingsError(
            f"arch {arch!r} gives {type(network).__name__}, not a torch module; {_CALLABLE}"
        )
    return network


def _origin(module_name: str) -> str:
    """The file that a module was imported from: another may have the same name."""
    file = getattr(sys.modules.get(module_name), "__file__", None)
    return f" (the module is {file})" if file else ""


def set_eval(network: nn.Module) -> None:
    """Put a network into eval mode, even where it has overridden ``train`` or ``eval``."""
    try:
        network.eval()
    except Exception:
        # As with a train(self, loader), which eval() calls as train(False).
        for module in network.modules():
            module.training = False


def check_is_classifier(arch: str) -> None:
    """Refuse a name that is no image classifier of torchvision's, before it is built.

    torchvision's detection and segmentation networks download a backbone while they are built.

    Args:
        arch: a torchvision name, in upper or lower case.

    Raises:
        SettingsError: it is none; the nearest names are listed.
    """
    classifiers = models.list_models(module=models)
    # torchvision ignores case, too.
    if arch.lower() in classifiers:
        return
    if arch.lower() in models.list_models():
        kind = models.get_model_builder(arch).__module__.split(".")[2]
        raise SettingsError(
            f"arch {arch!r} cannot be served: it is of torchvision's {kind} networks; accepted: an "
            "image classifier, as resnet50, or module:callable"
        )
    nearest = difflib.get_close_matches(arch.lower(), classifiers, n=3)
    hint = f"the nearest names: {', '.join(nearest)}" if nearest else "as resnet50"
    raise SettingsError(
        f"arch {arch!r} cannot be built: torchvision has no classifier of that name; accepted: one "
        f"of its names ({hint}), or module:callable"
    )
