"""Class scores -> maps.

Forward hooks cut the network at its target layers (:class:`HookedNetwork`). One short backward pass
gives the gradient of every chosen score, a method makes a map of activations and gradients, and
each map is normalised by itself. :func:`explain_batch` does all of it for the photos of one forward
pass, and :func:`measure_faithfulness` says how far the maps are true. This wing uses
PyTorch, and knows no image format.
"""

from camserve.explain.conditions import Condition, Verdict, parse_condition
from camserve.explain.decision import DecisionRule
from camserve.explain.explanations import (
    BatchExplanations,
    ExplanationRequest,
    LayerMap,
    ScoreExplanation,
    explain_batch,
    required_layers,
)
from camserve.explain.faithfulness import (
    ExplainedScore,
    Faithfulness,
    MeasuredPhoto,
    forward_count,
    measure_faithfulness,
)
from camserve.explain.hooks import ForwardOutput, HookedNetwork
from camserve.explain.methods import METHODS
from camserve.explain.targets import TargetKind, resolve_targets

__all__ = [
    "METHODS",
    "BatchExplanations",
    "Condition",
    "DecisionRule",
    "ExplainedScore",
    "ExplanationRequest",
    "Faithfulness",
    "ForwardOutput",
    "HookedNetwork",
    "LayerMap",
    "MeasuredPhoto",
    "ScoreExplanation",
    "TargetKind",
    "Verdict",
    "explain_batch",
    "forward_count",
    "measure_faithfulness",
    "parse_condition",
    "required_layers",
    "resolve_targets",
]
