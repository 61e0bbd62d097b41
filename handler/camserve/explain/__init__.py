"""Class scores -> maps.

Forward hooks cut the network at its target layers (:class:`HookedNetwork`). One short backward pass
gives the gradient of every chosen score, a method makes a map of activations and gradients, and
each map is normalised by itself. :func:`explain_batch` does all of it for the photos of one forward
pass. This wing uses PyTorch, and knows no image format.
"""

from camserve.explain.decision import DecisionRule
from camserve.explain.explanations import (
    BatchExplanations,
    ExplanationRequest,
    LayerMap,
    ScoreExplanation,
    explain_batch,
    required_layers,
)
from camserve.explain.hooks import ForwardOutput, HookedNetwork
from camserve.explain.methods import METHODS
from camserve.explain.targets import TargetKind, resolve_targets

__all__ = [
    "METHODS",
    "BatchExplanations",
    "DecisionRule",
    "ExplanationRequest",
    "ForwardOutput",
    "HookedNetwork",
    "LayerMap",
    "ScoreExplanation",
    "TargetKind",
    "explain_batch",
    "required_layers",
    "resolve_targets",
]
