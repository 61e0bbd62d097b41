"""The hook, the one backward and the maps: by hand, against two other libraries, on any CNN."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import pytest
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.testing import assert_close

from camserve import gradcam
from camserve.errors import SettingsError
from camserve.network import build
from quickstart_calls import sample


@pytest.fixture(scope="session")
def photo() -> Tensor:
    """The head of a cat, (1, 3, 224, 224), as EfficientNet-Lite0 wants it."""
    pixels = cv2.imread(str(sample("chelsea.png")), cv2.IMREAD_COLOR_RGB)[:, 75:375]
    pixels = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
    return (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.498) / 0.502


def settled(arch: str, classes: int = 1000) -> nn.Module:
    """A seeded torchvision network whose batch norms have seen noise: its maps are not constant."""
    torch.manual_seed(0)
    network = build(arch, {}, classes)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            network.train()(torch.randn(4, 3, 64, 64))
    return network.eval()


def maps_of(layer: gradcam.TargetLayer, inputs: Tensor, classes: Tensor) -> gradcam.Maps:
    """Input n's map of class n."""
    scores = layer.forward(inputs)
    gradients = gradcam.gradients(scores, torch.arange(len(classes)), classes)
    return gradcam.normalise(gradcam.gradcam(scores.activations.detach(), gradients))


def hooks_of(network: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules()
    )


# By hand


class Squares(nn.Module):
    """Two channels as they come in; scores from the sums of their squares. A gradient to work out.

    ``after`` stands at the head's beginning, ``before`` at the trunk's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Identity(), nn.Identity()
        self.pick = nn.Conv2d(3, 2, 1, bias=False)
        self.unused = nn.Conv2d(3, 2, 1)
        self.fc = nn.Linear(2, 3, bias=False)
        self.pick.weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).view(2, 3, 1, 1)
        self.fc.weight.data = torch.tensor([[1.0, -1], [-1, 2], [0, 3]])
        self.double().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.unused(inputs)
        channels = self.after(self.pick(self.before(inputs)))
        return self.fc(channels.square().sum(dim=(2, 3)))


# The third channel is picked by none.
GRIDS = torch.tensor([[[[1, 2], [3, 4]], [[0, 1], [-1, 2]], [[9, 9], [9, 9]]]]).double()
LOGITS = [24, -18, 18]  # the sums of squares are 30 and 6
# Of each class: the gradient 2 w_k A^k of both channels, the map, its peak.
BY_HAND = [
    # alpha 5 and -1: 5 A - B = [[5, 9], [16, 18]]
    ([[[2, 4], [6, 8]], [[0, -2], [2, -4]]], [[0, 4 / 13], [11 / 13, 1]], 18),
    # alpha -5 and 2: -5 A + 2 B = [[-5, -8], [-17, -16]], nowhere positive
    ([[[-2, -4], [-6, -8]], [[0, 4], [-4, 8]]], [[0, 0], [0, 0]], 0),
    # alpha 0 and 3: 3 B = [[0, 3], [-3, 6]]
    ([[[0, 0], [0, 0]], [[0, 6], [-6, 12]]], [[0, 0.5], [0, 1]], 6),
]


@pytest.mark.parametrize("classes", [[0], [1], [2], [0, 1, 2], [2, 0]])
def test_a_map_is_the_one_worked_out_by_hand(classes: list[int]) -> None:
    layer = gradcam.TargetLayer(Squares(), "pick", GRIDS)
    scores = layer.forward(GRIDS.expand(3, -1, -1, -1))
    assert layer.classes == 3
    assert scores.logits.tolist() == [LOGITS] * 3

    gradients = gradcam.gradients(scores, torch.arange(len(classes)), torch.tensor(classes))
    maps = gradcam.normalise(
        gradcam.gradcam(scores.activations[: len(classes)].detach(), gradients)
    )

    expected = [BY_HAND[c] for c in classes]
    assert gradients.tolist() == [gradient for gradient, _, _ in expected]
    assert maps.peak.tolist() == [peak for _, _, peak in expected]
    assert maps.evidence.tolist() == [peak > 0 for _, _, peak in expected]
    assert maps.values.dtype == torch.float64
    values = torch.tensor([values for _, values, _ in expected], dtype=torch.float64)
    assert_close(maps.values, values, rtol=0, atol=1e-15)


@pytest.mark.parametrize("samples", [[0, 1, 2], [2, 0], [1]])
def test_a_gradient_is_that_of_the_sample_it_was_asked_for(samples: list[int]) -> None:
    layer = gradcam.TargetLayer(Squares(), "pick", GRIDS)
    scores = layer.forward(torch.cat([GRIDS, 10 * GRIDS, -GRIDS]))
    gradients = gradcam.gradients(
        scores, torch.tensor(samples), torch.zeros(len(samples), dtype=torch.long)
    )
    of_class_0 = torch.tensor(BY_HAND[0][0]).double()
    assert_close(gradients, torch.stack([of_class_0 * (1, 10, -1)[n] for n in samples]))


@pytest.mark.parametrize(
    ("raw", "values", "evidence"),
    [
        ([[0, 0], [0, 0]], [[0, 0], [0, 0]], False),
        ([[3, 3], [3, 3]], [[0, 0], [0, 0]], False),
        ([[7]], [[0]], False),
        ([[1, 3], [2, 5]], [[0, 0.5], [0.25, 1]], True),
        ([[0, 1e-30], [2e-30, 0]], [[0, 0.5], [1, 0]], True),
        ([[0, 1e-44], [0, 0]], [[0, 1], [0, 0]], True),
        ([[0, 1e38], [3e38, 2e38]], [[0, 1 / 3], [1, 2 / 3]], True),
        ([[1e38, 1e38], [1e38, 1e38]], [[0, 0], [0, 0]], False),
    ],
)
def test_normalisation_stretches_a_map_over_0_to_1(
    raw: list[list[float]], values: list[list[float]], evidence: bool
) -> None:
    single = torch.tensor([raw], dtype=torch.float32)
    maps = gradcam.normalise(single)
    assert_close(maps.values, torch.tensor([values], dtype=torch.float32), rtol=0, atol=1e-6)
    assert maps.evidence.tolist() == [evidence]
    assert maps.peak.tolist() == [single.max().item()]


def test_normalisation_is_per_map_and_never_over_the_batch() -> None:
    grid = torch.tensor([[1.0, 2], [3, 5]])
    maps = gradcam.normalise(torch.stack([grid, 1e6 * grid, torch.zeros(2, 2), 1e-20 * grid]))
    expected = torch.tensor([[0, 0.25], [0.5, 1]])
    assert_close(maps.values, torch.stack([expected, expected, torch.zeros(2, 2), expected]))
    assert maps.evidence.tolist() == [True, True, False, True]
    assert_close(maps.peak, torch.tensor([5, 5e6, 0, 5e-20]), rtol=1e-6, atol=0)


# Against other libraries

Reference = Callable[[nn.Module, nn.Module, Tensor, Tensor], Tensor]


def by_pytorch_grad_cam(
    network: nn.Module, module: nn.Module, inputs: Tensor, classes: Tensor
) -> Tensor:
    # Its own result is resized to the input, and its scaling adds 1e-7 to the maximum that it
    # divides by. So take the map that it has before: `get_cam_image` of what its pass recorded.
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    with GradCAM(network, [module]) as cam:
        cam(inputs, targets)
        (activations,), (gradients,) = (
            cam.activations_and_grads.activations,
            cam.activations_and_grads.gradients,
        )
        raw = cam.get_cam_image(inputs, module, targets, activations.numpy(), gradients.numpy())
    return torch.from_numpy(raw).relu()


def by_captum(network: nn.Module, module: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    raw = LayerGradCam(network, module).attribute(inputs, classes, relu_attributions=True)
    return raw.squeeze(1).detach()


@dataclass(frozen=True)
class Explained:
    """Four classes of one photo explained, and an untouched copy of the network that did it."""

    network: nn.Module
    name: str
    inputs: Tensor
    classes: Tensor
    maps: gradcam.Maps


@pytest.fixture(
    scope="module",
    params=[("resnet50", "layer4.2"), ("resnet18", "layer4.1"), ("efficientnet-lite0", "_bn1")],
    ids=lambda of: of[0],
)
def explained(
    request: pytest.FixtureRequest, photo: Tensor, efficientnet_lite0: nn.Module
) -> Explained:
    arch, name = request.param
    network = efficientnet_lite0 if arch == "efficientnet-lite0" else settled(arch)
    layer = gradcam.TargetLayer(copy.deepcopy(network), name, photo)
    # The predicted class, the next, and two that the network thinks less of.
    ranks = layer.forward(photo).logits[0].argsort(descending=True)
    classes = ranks[[0, 1, 10, 500]]
    inputs = photo.repeat(len(classes), 1, 1, 1)
    return Explained(network, name, inputs, classes, maps_of(layer, inputs, classes))


@pytest.mark.parametrize("reference", [by_pytorch_grad_cam, by_captum])
def test_maps_equal_those_of_another_library(reference: Reference, explained: Explained) -> None:
    network, maps = explained.network, explained.maps
    module = network.get_submodule(explained.name)
    raw = reference(network, module, explained.inputs, explained.classes)
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)

    assert maps.evidence.all()
    assert maps.values.dtype == torch.float32
    assert maps.values.shape == (4, 7, 7)
    assert_close(maps.values, (raw - low) / (high - low), rtol=0, atol=1e-4)
    assert_close(maps.peak, high.flatten(), rtol=1e-4, atol=0)
    # The four maps differ by far more than the tolerance: comparing them says something.
    assert min(torch.pdist(maps.values.flatten(1), p=torch.inf)) > 0.01


# A batch


def test_in_a_batch_a_photo_has_the_map_that_it_has_alone(photo: Tensor) -> None:
    layer = gradcam.TargetLayer(settled("resnet18"), "layer4.1", photo)
    torch.manual_seed(1)
    inputs = torch.cat([photo, photo.flip(3), photo.roll(60, 2), -photo, torch.randn_like(photo)])
    classes = layer.forward(inputs).logits.argsort(descending=True)[:, :5].diagonal()

    together = maps_of(layer, inputs, classes)
    alone = [maps_of(layer, inputs[n : n + 1], classes[n : n + 1]) for n in range(5)]

    assert together.evidence.all()
    assert len(set(classes.tolist())) > 1
    assert_close(together.values, torch.cat([m.values for m in alone]), rtol=0, atol=1e-5)
    assert_close(together.peak, torch.cat([m.peak for m in alone]), rtol=1e-5, atol=0)


# Any CNN

LAYERS = {
    "resnet18": "layer4.1",
    "vgg16": "features.29",
    "densenet121": "features.norm5",
    "mobilenet_v3_small": "features.12",
    "efficientnet_b0": "features.8",
    "convnext_tiny": "features.7.2",
    "efficientnet-lite0": "_bn1",
}


@dataclass(frozen=True)
class Subject:
    """An untouched network and what it does without this project: the truth to compare with.

    Gradients are those of class 1 for the first input and of class 2 for the second.
    """

    network: nn.Module
    name: str
    inputs: Tensor
    logits: Tensor
    activations: Tensor
    gradients: Tensor


@pytest.fixture(scope="module", params=LAYERS)
def subject(
    request: pytest.FixtureRequest, photo: Tensor, efficientnet_lite0: nn.Module
) -> Subject:
    name = LAYERS[request.param]
    lite = request.param == "efficientnet-lite0"
    network = copy.deepcopy(efficientnet_lite0) if lite else settled(request.param, 5)
    inputs = torch.cat([photo, photo.flip(2)])[..., 64:160, 64:160].contiguous()
    seen: list[Tensor] = []
    # What runs in place after the layer, a ReLU in VGG and DenseNet, changes the clone alone.
    plain = network.get_submodule(name).register_forward_hook(
        lambda module, args, output: seen.append(output.clone())
    )
    with torch.no_grad():
        logits = network(inputs)
    plain.remove()

    whole = copy.deepcopy(network)
    for module in whole.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        output.retain_grad()
        outputs.append(output)
        # DenseNet calls its last ReLU in place as a function, which no module's setting reaches.
        return output.clone()

    whole.get_submodule(name).register_forward_hook(keep)
    whole(inputs)[[0, 1], [1, 2]].sum().backward()
    assert outputs[0].grad is not None
    return Subject(network, name, inputs, logits, seen[0], outputs[0].grad)


@pytest.fixture
def hooked(subject: Subject) -> Iterator[gradcam.TargetLayer]:
    layer = gradcam.TargetLayer(subject.network, subject.name, subject.inputs[:1])
    yield layer
    layer.close()


def test_the_default_layer_is_the_last_grid(subject: Subject) -> None:
    assert gradcam.default_layer(subject.network, subject.inputs[:1]) == subject.name
    assert hooks_of(subject.network) == 0


def test_scores_and_activations_are_the_plain_networks(
    subject: Subject, hooked: gradcam.TargetLayer
) -> None:
    scores = hooked.forward(subject.inputs)
    assert hooked.name == subject.name
    assert hooked.classes == subject.logits.shape[1]
    assert_close(scores.logits.detach(), subject.logits, rtol=1e-5, atol=1e-6)
    assert_close(scores.activations.detach(), subject.activations, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_that_of_a_backward_through_the_whole_network(
    subject: Subject, hooked: gradcam.TargetLayer
) -> None:
    scores = hooked.forward(subject.inputs)
    gradients = gradcam.gradients(scores, torch.arange(2), torch.tensor([1, 2]))
    scale = subject.gradients.abs().max().item()
    assert scale > 0
    assert_close(gradients, subject.gradients, rtol=1e-4, atol=1e-5 * scale)
    # The backward leaves the activations as they are too.
    assert_close(scores.activations.detach(), subject.activations, rtol=1e-5, atol=1e-6)


def test_the_trunk_leaves_no_tape(subject: Subject, hooked: gradcam.TargetLayer) -> None:
    scores = hooked.forward(subject.inputs)
    assert scores.activations.is_leaf
    assert scores.activations.grad_fn is None
    assert scores.activations.requires_grad
    assert scores.logits.requires_grad
    assert not any(parameter.requires_grad for parameter in subject.network.parameters())


def test_outside_of_a_forward_the_hooked_network_is_the_plain_one(
    subject: Subject, hooked: gradcam.TargetLayer
) -> None:
    logits = subject.network(subject.inputs)
    assert not logits.requires_grad
    assert_close(logits, subject.logits, rtol=1e-5, atol=1e-6)


def test_close_takes_the_hook_off(subject: Subject) -> None:
    layer = gradcam.TargetLayer(subject.network, subject.name, subject.inputs[:1])
    assert hooks_of(subject.network) == 1
    layer.close()
    assert hooks_of(subject.network) == 0


def test_under_no_grad_the_head_is_recorded_all_the_same() -> None:
    layer = gradcam.TargetLayer(Squares(), "pick", GRIDS)
    with torch.no_grad():
        scores = layer.forward(GRIDS)
    gradients = gradcam.gradients(scores, torch.tensor([0]), torch.tensor([0]))
    assert gradients.tolist() == [BY_HAND[0][0]]


# What runs in place


class Changes(Squares):
    """Changes the channels in place; its scores are from their sums."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, inputs: Tensor) -> Tensor:
        channels = self.pick(inputs)
        self.change(channels)
        return self.fc(channels.sum(dim=(2, 3)))


@pytest.mark.parametrize(
    ("change", "gradient"),
    [
        (lambda channels: channels, [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        # The second channel is [[0, 1], [-1, 2]].
        (lambda channels: channels.relu_(), [[[1, 1], [1, 1]], [[0, -1], [0, -1]]]),
        (lambda channels: channels.add_(1), [[[1, 1], [1, 1]], [[-1, -1], [-1, -1]]]),
        (lambda channels: channels[:, 1:].mul_(3), [[[1, 1], [1, 1]], [[-3, -3], [-3, -3]]]),
    ],
    ids=["nothing", "relu_", "add_", "mul_ on a view"],
)
def test_a_change_in_place_does_not_reach_the_activations(
    change: Callable[[Tensor], Tensor], gradient: list[list[list[float]]]
) -> None:
    layer = gradcam.TargetLayer(Changes(change), "pick", GRIDS)
    scores = layer.forward(GRIDS)
    assert_close(scores.activations.detach(), GRIDS[:, :2])
    gradients = gradcam.gradients(scores, torch.tensor([0]), torch.tensor([0]))
    assert gradients.tolist() == [gradient]


@pytest.mark.parametrize(
    ("name", "copied"),
    [("0", True), ("1", False)],
    ids=["a ReLU in place follows", "the layer ends in one"],
)
def test_a_copy_goes_on_only_where_something_runs_in_place(name: str, copied: bool) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).double()
    layer = gradcam.TargetLayer(network, name, GRIDS)
    received: list[int] = []
    network[int(name) + 1].register_forward_pre_hook(
        lambda module, args: received.append(args[0].data_ptr())
    )
    scores = layer.forward(GRIDS)
    assert (received != [scores.activations.data_ptr()]) is copied


# Failing


class Fails:
    """A forward pre-hook that raises once."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, module: nn.Module, args: tuple[Tensor]) -> None:
        if not self.done:
            self.done = True
            raise MemoryError("once")


@pytest.mark.parametrize("place", ["before", "pick", "after", "fc"])
def test_after_an_exception_in_a_forward_the_next_is_right(place: str) -> None:
    network = Squares()
    layer = gradcam.TargetLayer(network, "pick", GRIDS)
    failing = network.get_submodule(place).register_forward_pre_hook(Fails())
    with pytest.raises(MemoryError, match="once"):
        layer.forward(7 * GRIDS)
    failing.remove()

    assert hooks_of(network) == 1
    assert not network(GRIDS).requires_grad
    scores = layer.forward(GRIDS)
    assert scores.logits.tolist() == [LOGITS]
    gradients = gradcam.gradients(scores, torch.tensor([0]), torch.tensor([0]))
    assert gradients.tolist() == [BY_HAND[0][0]]


class Twice(Squares):
    """Calls every layer twice."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + super().forward(-inputs)


class Never(Squares):
    """Has a layer that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Conv2d(3, 2, 1)


class Dense(Squares):
    """Its scores stay a grid."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.pick(inputs)


class Severed(Squares):
    """Its scores come off the tape."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).detach()


@pytest.mark.parametrize(
    ("network", "name", "message"),
    [
        (Twice(), "pick", r"'pick' must run once .* not 2 times"),
        (Never(), "idle", r"'idle' must run once .* not 0 times"),
        (Squares(), "fc", r"'fc' must give .* \(N, K, h, w\), not \(1, 3\)"),
        (Squares(), "unused", r"scores do not depend on layer 'unused'"),
        (Severed(), "pick", r"scores do not depend on layer 'pick'"),
        (Dense(), "pick", r"scores of shape \(N, C\)"),
        (Squares(), "pikc", r"no layer 'pikc'.*nearest names.*\bpick\b"),
        (Squares(), "", r"no layer ''.*nearest names.*\bfc\b"),
    ],
)
def test_a_layer_that_carries_no_map_is_refused(
    network: nn.Module, name: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        gradcam.TargetLayer(network, name, GRIDS)
    assert hooks_of(network) == 0


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("layer4.9", "layer4.1"), ("layer_4.1", "layer4.1"), ("layer4[-1]", "layer4.1")],
)
def test_a_wrong_name_is_answered_with_near_ones(name: str, nearest: str) -> None:
    network = build("resnet18", {}, 5).eval()
    with pytest.raises(SettingsError) as error:
        gradcam.find_layer(network, name)
    listed = str(error.value).split("nearest names: ")[1].split(", ")
    assert nearest in listed
    assert all(network.get_submodule(near) for near in listed)


def test_a_network_without_a_grid_has_no_default_layer() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    with pytest.raises(SettingsError, match=r"no module .* grid"):
        gradcam.default_layer(network, GRIDS)
    assert hooks_of(network) == 0
