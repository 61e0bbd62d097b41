"""Whether a layer sees the network's whole input: a map of it is stretched over all of the input.

A network may crop the photo in its forward. The grid of a layer behind that is of the crop alone,
and its map, stretched over the whole input, would be hot beside what it shows. So the gradient of a
random sum of the layer's output is taken to the input: where it is exactly zero for all photos that
are tried, nothing of the photo reaches the layer. The rows and columns are taken together, from the
first to the last that count, as a single pixel counts for nothing behind a ReLU that is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camserve.errors import SettingsError
from camserve.networks.gradient_mode import GradientsStayOn
from camserve.networks.layouts import GridLayout


@dataclass(frozen=True)
class SeenInput:
    """The part of the network's input that a layer's output depends on, in pixels.

    Attributes:
        top, left: the first row and column.
        bottom, right: those after the last.
    """

    top: int
    left: int
    bottom: int
    right: int

    def __or__(self, other: SeenInput) -> SeenInput:
        """What one of two sees, or both."""
        return SeenInput(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def leaves_out_cells(self, layout: GridLayout, size: tuple[int, int]) -> bool:
        """Whether rows or columns of a cell's height or width or more are left out.

        A convolution with a stride may leave out less than a cell at the end of the input.

        Args:
            layout: of the layer.
            size: height and width of the input.
        """
        height, width = size
        rows, columns = height - (self.bottom - self.top), width - (self.right - self.left)
        return rows * layout.height >= height or columns * layout.width >= width


def check_sees_whole_input(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    layouts: Mapping[str, GridLayout],
    photo: Tensor,
    other: Tensor,
) -> None:
    """Check that each layer's output depends on all of the input, up to less than a cell.

    A layer that no gradient reaches the input from, as behind a rounding, cannot be checked.

    Args:
        network: in eval mode.
        layers: its modules to explain, by name.
        layouts: of their outputs.
        photo, other: (1, C, H, W), two different inputs on the network's device.

    Raises:
        SettingsError: a layer sees a part of the input; the message says which.
    """
    height, width = size = photo.shape[2], photo.shape[3]
    unproved = dict(layers)
    seen: dict[str, SeenInput] = {}
    # Nearly always the first photo shows it.
    for make in _photos(photo, other):
        if not unproved:
            return
        for name, found in _seen_by(network, unproved, make()).items():
            seen[name] = seen[name] | found if name in seen else found
        unproved = {
            name: layer
            for name, layer in unproved.items()
            if name in seen and seen[name].leaves_out_cells(layouts[name], size)
        }
    for name in unproved:
        part = seen[name]
        raise SettingsError(
            f"layer {name!r} sees only rows {part.top} to {part.bottom - 1} and columns "
            f"{part.left} to {part.right - 1} of the network's input of {height} x {width} pixels, "
            "and its map would be stretched over all of it; accepted: a layer that sees the whole "
            "input, as of the network without the crop in its forward, with the size of that crop "
            f"as handler.preprocess.crop=[{part.bottom - part.top}, {part.right - part.left}] "
            "(--set)"
        )


def _photos(photo: Tensor, other: Tensor) -> Iterator[Callable[[], Tensor]]:
    """Inputs that let different activations through."""
    yield lambda: photo
    yield lambda: other
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(photo.shape, generator=generator).to(photo)
        yield lambda noise=noise: 2 * noise  # type: ignore[misc]
    yield lambda: -photo
    yield lambda: -other


def _seen_by(
    network: nn.Module, layers: Mapping[str, nn.Module], photo: Tensor
) -> dict[str, SeenInput]:
    """What layers see of a photo (1, C, H, W); without those that no gradient leads from."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            # The next module may change it in place.
            outputs[name] = output.clone()

        return hook

    hooks = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    leaf = photo.detach().clone().requires_grad_()
    try:
        with torch.enable_grad(), GradientsStayOn():
            network(leaf.clone())
            gradients = {name: _gradient(output, leaf) for name, output in outputs.items()}
    except Exception:
        # An operation of the trunk has no gradient, or refuses one: a trunk does not need any.
        return {}
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: part
        for name, gradient in gradients.items()
        if gradient is not None and (part := _extent(gradient))
    }


def _gradient(output: Tensor, leaf: Tensor) -> Tensor | None:
    """The gradient of a random sum of an output with respect to a leaf; None where none leads."""
    if not output.requires_grad:
        return None
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=generator).to(output)
    (gradient,) = torch.autograd.grad(
        (weights * output).sum(), [leaf], retain_graph=True, allow_unused=True
    )
    return gradient


def _extent(gradient: Tensor) -> SeenInput | None:
    """From the first to the last row and column that are not zero; None where all are."""
    counts = gradient[0].ne(0).any(0)
    rows, columns = counts.any(1).nonzero().flatten(), counts.any(0).nonzero().flatten()
    if not len(rows):
        return None
    return SeenInput(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
