"""The classifier: built, checked, split at the target layer and accelerated, on CPU and GPU.

:class:`Network` loads architecture, weights and labels. :func:`check_network` refuses a network
whose explanations would be wrong. :func:`accelerate` splits a network at its target layer, compiles
the trunk (everything up to that layer, elsewhere called the backbone) and verifies that its outputs
stay the same.
"""

from camserve.networks.acceleration import AccelerationResult, accelerate
from camserve.networks.architectures import build, check_is_classifier, set_eval
from camserve.networks.checks import CheckedNetwork, check_network
from camserve.networks.classifier import Network
from camserve.networks.forward import run_network
from camserve.networks.gradient_mode import GradientsStayOn
from camserve.networks.labels import Labels
from camserve.networks.layers import default_layer, get_layer
from camserve.networks.layouts import GridLayout
from camserve.networks.linear_head import linear_head_biases
from camserve.networks.model_libraries import (
    check_requirements,
    installed_version,
    is_hf_model,
    is_timm_model,
)
from camserve.networks.openvino_backend import unavailable_reason as openvino_unavailable_reason
from camserve.networks.outputs import ScoreReader

__all__ = [
    "AccelerationResult",
    "CheckedNetwork",
    "GradientsStayOn",
    "GridLayout",
    "Labels",
    "Network",
    "ScoreReader",
    "accelerate",
    "build",
    "check_is_classifier",
    "check_network",
    "check_requirements",
    "default_layer",
    "get_layer",
    "installed_version",
    "is_hf_model",
    "is_timm_model",
    "linear_head_biases",
    "openvino_unavailable_reason",
    "run_network",
    "set_eval",
]
