"""How a map is made of a layer's activations and gradients: a registry of pure functions.

Each takes the activations (M, K, h, w) and the gradients (M, K, h, w) of one score each with
respect to them, and gives M raw maps (M, h, w), none below zero. A new method is one function here,
under its name in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from camserve.options import Method

# pytorch-grad-cam's; they keep a channel that is silent everywhere from dividing by zero. The
# papers have none.
_PLUS_PLUS_EPSILON: Final = 1e-6
_XGRAD_EPSILON: Final = 1e-7


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of alpha_k A^k), alpha_k the spatial mean of the gradient.

    Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2.
    """
    spread = gradients.stride()[2:] == (0, 0)
    # What a pooling's gradient is: one number for all places.
    weights = gradients[:, :, 0, 0] if spread else gradients.mean(dim=(2, 3))
    return _weighted(activations, weights)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM whose mean over places is weighted, so that several instances of a class all show.

    Chattopadhay et al. 2018, arXiv 1710.11063, equation 19: with the score's exponential as the
    class score, the higher derivatives are powers of the gradient.
    """
    squares = gradients.square()
    total = activations.sum(dim=(2, 3), keepdim=True)
    places = squares / (2 * squares + total * squares * gradients + _PLUS_PLUS_EPSILON)
    return _weighted(activations, (places * gradients.relu()).sum(dim=(2, 3)))


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of gradient * A^k), place by place: what the score is made of.

    Draelos and Carin 2020, arXiv 2011.08891, equation 3.
    """
    return (gradients * activations).sum(dim=1).relu()


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM with each place's gradient weighted by its share of the channel's activation.

    Fu et al. 2020, arXiv 2008.02312, equation 8.
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    shares = activations / (total + _XGRAD_EPSILON)
    return _weighted(activations, (gradients * shares).sum(dim=(2, 3)))


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU(sum over k of ReLU(gradient) * A^k): fine in early layers too.

    Jiang et al. 2021, "LayerCAM", IEEE Transactions on Image Processing 30, equations 5 to 7.
    """
    return (gradients.relu() * activations).sum(dim=1).relu()


def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Sum over k of ReLU(gradient * A^k): only what speaks for the class, channel by channel.

    As pytorch-grad-cam has it (GradCAMElementWise).
    """
    return (gradients * activations).relu().sum(dim=1)


def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the activations' first principal component: what the layer sees, of no class.

    Muhammad and Yeasin 2020, arXiv 2008.00299. The gradients have no part in it.
    """
    return _first_component(activations)


def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the first principal component of gradient * A: EigenCAM of a class.

    As pytorch-grad-cam has it (EigenGradCAM).
    """
    return _first_component(gradients * activations)


def _weighted(activations: Tensor, weights: Tensor) -> Tensor:
    """ReLU of the channels' sum, weighted (M, K)."""
    samples, _, height, width = activations.shape
    summed = weights.unsqueeze(1).bmm(activations.flatten(2))
    return summed.view(samples, height, width).relu_()


def _first_component(values: Tensor) -> Tensor:
    """(M, K, h, w) -> (M, h, w): each place's coordinate along the first principal axis, ReLU.

    A principal axis has no sign of its own. It is pointed to where the sum over the channels is
    above its mean, so that the map is hot where the layer is active, or the class has evidence.
    """
    places = values.flatten(2).double()
    # Scores that are not finite are refused later; here they must not fail the neighbours.
    places = torch.nan_to_num(places, nan=0.0, posinf=0.0, neginf=0.0)
    places = places - places.mean(dim=2, keepdim=True)
    # The eigenvectors of the smaller of the two products give the singular vectors of both.
    if places.shape[1] <= places.shape[2]:
        axis = torch.linalg.eigh(places @ places.mT).eigenvectors[..., -1:]
        component = (axis.mT @ places).squeeze(1)
    else:
        values_, vectors = torch.linalg.eigh(places.mT @ places)
        component = vectors[..., -1] * values_[..., -1:].clamp(min=0).sqrt()
    agreement = (component * places.sum(dim=1)).sum(dim=1, keepdim=True)
    component = torch.where(agreement < 0, -component, component)
    return component.relu().view(values[:, 0].shape).to(values.dtype)


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
