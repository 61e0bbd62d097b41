"""The classifier: built, checked, cut at the target layer, and made fast, on CPU and GPU.

:class:`Network` loads architecture, weights and labels; :func:`check_network` refuses what an
explanation could not be trusted for; :func:`accelerate` compiles the trunk, which is everything
up to the target layer (elsewhere called the backbone), and verifies that its scores stay the same.
"""

from camserve.networks.acceleration import AccelerationResult, accelerate
from camserve.networks.checks import check_network
from camserve.networks.classifier import Network, build, check_is_classifier, set_eval
from camserve.networks.labels import Labels
from camserve.networks.layers import get_layer, last_spatial_layer

__all__ = [
    "AccelerationResult",
    "Labels",
    "Network",
    "accelerate",
    "build",
    "check_is_classifier",
    "check_network",
    "get_layer",
    "last_spatial_layer",
    "set_eval",
]
