"""The CAM methods: how a map is made of a layer's activations and gradients, as pure functions.

Each function takes activations A (M, K, h, w) and the gradients (M, K, h, w) of M scores with
respect to them, and returns M raw maps (M, h, w) that are not negative. To add a method, write its
function here and enter it in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from camserve.options import Method

# Those of pytorch-grad-cam: no division by zero for a channel that is zero everywhere. The papers
# have none.
_PLUS_PLUS_EPSILON: Final = 1e-6
_XGRAD_EPSILON: Final = 1e-7
#: A sum over the channels that varies less, as a share of what the channels vary, is constant but
#: for rounding errors.
_MIN_TOTAL: Final = 1e-4


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of alpha_k A^k), alpha_k the spatial mean of the gradient.

    Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.
    """
    # The gradient of average pooling is one value expanded over all locations: its mean.
    is_expanded = gradients.stride()[2:] == (0, 0)
    weights = gradients[:, :, 0, 0] if is_expanded else gradients.mean(dim=(2, 3))
    return _weighted_sum(activations, weights)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM with a weighted mean over locations, so that all instances of a class show.

    Chattopadhay et al. 2018, arXiv 1710.11063, equation 19: with the score's exponential as the
    class score, the higher derivatives are powers of the gradient.
    """
    squares = gradients.square()
    total = activations.sum(dim=(2, 3), keepdim=True)
    location_weights = squares / (2 * squares + total * squares * gradients + _PLUS_PLUS_EPSILON)
    return _weighted_sum(activations, (location_weights * gradients.relu()).sum(dim=(2, 3)))


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of gradient * A^k): each location's contribution to the score.

    Draelos and Carin 2020, arXiv 2011.08891, equation 3.
    """
    return (gradients * activations).sum(dim=1).relu()


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM with each location's gradient weighted by its share of the channel's activation.

    Fu et al. 2020, arXiv 2008.02312, equation 8.
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    shares = activations / (total + _XGRAD_EPSILON)
    return _weighted_sum(activations, (gradients * shares).sum(dim=(2, 3)))


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of ReLU(gradient) * A^k): detailed in early layers too.

    Jiang et al. 2021, "LayerCAM", IEEE Transactions on Image Processing 30, equations 5 to 7.
    """
    return (gradients.relu() * activations).sum(dim=1).relu()


def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Sum over k of ReLU(gradient * A^k): the positive contributions of each channel.

    No paper; pytorch-grad-cam's GradCAMElementWise.
    """
    return (gradients * activations).relu().sum(dim=1)


def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the first principal component of A: the same map for every class.

    Muhammad and Yeasin 2020, arXiv 2008.00299. The gradients are not used.
    """
    return _first_component(activations)


def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the first principal component of gradient * A: EigenCAM of one class.

    No paper; pytorch-grad-cam's EigenGradCAM.
    """
    return _first_component(gradients * activations)


def _weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    """ReLU of the sum over channels of activations (M, K, h, w) with weights (M, K): (M, h, w)."""
    samples, _, height, width = activations.shape
    weighted = weights.unsqueeze(1).bmm(activations.flatten(2))
    return weighted.view(samples, height, width).relu_()


def _first_component(values: Tensor) -> Tensor:
    """(M, K, h, w) -> (M, h, w): ReLU of each location's score on the first principal axis.

    A principal axis has an arbitrary sign. Here it is chosen so that the component correlates
    positively with the sum over the channels: the map is hot where the layer is active, or the
    class has evidence. Behind a layer norm that sum is the same everywhere; there the sign is
    chosen so that the component's cubes sum to a positive number: few locations are hot.
    """
    locations = values.flatten(2).double()
    # Scores that are not finite are rejected later; here they must not fail the whole batch.
    locations = torch.nan_to_num(locations, nan=0.0, posinf=0.0, neginf=0.0)
    centred = locations - locations.mean(dim=2, keepdim=True)
    # The eigenvectors of the smaller of the two Gram matrices give the singular vectors of both.
    channels, location_count = centred.shape[1:]
    if channels <= location_count:
        axis = torch.linalg.eigh(centred @ centred.mT).eigenvectors[..., -1:]
        component = (axis.mT @ centred).squeeze(1)
    else:
        eigenvalues, eigenvectors = torch.linalg.eigh(centred.mT @ centred)
        component = eigenvectors[..., -1] * eigenvalues[..., -1:].clamp(min=0).sqrt()
    total = centred.sum(dim=1)
    correlation = (component * total).sum(dim=1, keepdim=True)
    cubes = component.pow(3).sum(dim=1, keepdim=True)
    is_constant = total.norm(dim=1) < _MIN_TOTAL * centred.norm(dim=(1, 2))
    direction = torch.where(is_constant.unsqueeze(1), cubes, correlation)
    component = torch.where(direction < 0, -component, component)
    return component.relu().view(values[:, 0].shape).to(values.dtype)


#: By the names that requests use.
METHODS: Final[dict[Method, Callable[[Tensor, Tensor], Tensor]]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "hirescam": hirescam,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "gradcam_elementwise": gradcam_elementwise,
    "eigencam": eigencam,
    "eigengradcam": eigengradcam,
}
