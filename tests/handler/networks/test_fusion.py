"""A trunk in fused kernels: what goes into one, what is left alone, the same numbers from it."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, fx, nn
from torch.testing import assert_close

from camserve.networks import fusion

HEIGHT, WIDTH = 9, 7  # no two sides alike
BATCHES = (1, 2, 5)
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


class Body(nn.Module):
    """A trunk of whatever parts it is given."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.run = run
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> Any:
        return self.run(self, inputs)


def inputs_of(batch: int, seed: int = 0) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, HEIGHT, WIDTH, generator=noise)


def fused(body: nn.Module, precision: torch.dtype = FLOAT32) -> fx.GraphModule:
    return fusion.fuse(fx.symbolic_trace(body), inputs_of(1), precision)


def steps(trunk: fx.GraphModule) -> list[str]:
    """What runs, in order: fused kernels, and the names of what is left beside them."""
    found = []
    for node in trunk.graph.nodes:
        if node.op == "call_module":
            name = type(trunk.get_submodule(node.target)).__name__
            found.append("kernel" if node.target.startswith("fused") else name)
        elif node.op in ("call_function", "call_method"):
            found.append(getattr(node.target, "__name__", node.target))
    # In float32 it does nothing.
    return [step for step in found if step != "float"]


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def assert_same(trunk: nn.Module, body: nn.Module, precision: torch.dtype = FLOAT32) -> None:
    """The same numbers from batches of any size, however they lie in memory."""
    for batch in BATCHES:
        for layout in (torch.contiguous_format, torch.channels_last):
            inputs = inputs_of(batch, seed=batch).contiguous(memory_format=layout)
            expected = body(inputs.clone())
            found = trunk(inputs)
            assert found.dtype == FLOAT32
            assert found.shape == expected.shape
            if precision is FLOAT32:
                off = float(((found - expected).abs() / (1e-5 + 1e-4 * expected.abs())).max())
            else:
                # It has 8 bits: each rounding is off by 1/512 at most.
                off = apart(found, expected) / 0.02
            assert off < 1


@torch.no_grad()
def norm(channels: int = 4, **options: Any) -> nn.BatchNorm2d:
    """A batch norm that has learnt something: of no channel is anything 0 or 1."""
    made = nn.BatchNorm2d(channels, **options)
    for name, values in (
        ("running_mean", [0.5, -1, 0.1, 2]),
        ("running_var", [0.3, 2, 1e-4, 1.7]),
        ("weight", [1.5, -0.7, 0.01, 0.9]),
        ("bias", [-0.2, 0.4, 1, -1]),
    ):
        if getattr(made, name) is not None:
            getattr(made, name).copy_(torch.tensor(values)[torch.arange(channels) % 4])
    return made


def conv(*arguments: Any, **options: Any) -> nn.Conv2d:
    """From 3 to 4 channels and the same size, but for what is said."""
    torch.manual_seed(0)
    return nn.Conv2d(*(arguments or (3, 4, 3)), **{"padding": 1, **options})


def strong() -> nn.Conv2d:
    """With outputs on both sides of 0, of 3 and of 6, where activations have their bends."""
    made = conv()
    made.weight.data *= 8
    return made


def inner(**options: Any) -> nn.Conv2d:
    """From 4 to 4 channels and the same size."""
    torch.manual_seed(1)
    return nn.Conv2d(4, 4, 3, padding=1, **options)


class Case(NamedTuple):
    body: Body
    steps: list[str] | None  # None where it does not matter


def case(left: Sequence[str] | None, run: Callable[..., Any], **parts: nn.Module | Tensor) -> Case:
    return Case(Body(run, **parts), None if left is None else list(left))


def after_conv(step: Any) -> Callable[..., Any]:
    """A convolution, then a step."""
    return lambda body, x: step(body.c(x))


def of_a(step: Any) -> Callable[..., Any]:
    """A step from what the convolution ``a`` gives."""
    return lambda body, x: step(body, body.a(x))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def forward(self, inputs: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        return F.relu(second(F.relu(first(inputs))) + inputs)


K = "kernel"
PARTS = {"a": conv(), "c": inner(), "d": inner(groups=2), "e": inner(bias=False)}
torch.manual_seed(0)
WEIGHT, BIAS = torch.randn(4, 3, 3, 3) / 5, torch.randn(4)
GEOMETRY: dict[str, dict[str, Any]] = {
    "no bias": {"bias": False},
    "stride": {"stride": 2},
    "strides": {"stride": (2, 3)},
    "no padding": {"padding": 0},
    "paddings": {"padding": (2, 0)},
    "dilation": {"dilation": 2},
    "dilations": {"dilation": (1, 2), "padding": (0, 3), "stride": (1, 2)},
}
CASES = {
    # A convolution
    "a convolution": case([K], after_conv(lambda y: y), c=conv()),
    **{name: case([K], after_conv(lambda y: y), c=conv(**how)) for name, how in GEOMETRY.items()},
    "1x1": case([K], after_conv(lambda y: y), c=conv(3, 8, 1, padding=0)),
    "5x1": case([K], after_conv(lambda y: y), c=conv(3, 8, (5, 1), padding=(2, 0))),
    "many channels": case([K] * 2, lambda b, x: b.d(b.c(x)), c=conv(3, 40, 1), d=conv(40, 24, 3)),
    "grouped": case([K] * 2, lambda b, x: b.d(b.c(x)), c=conv(), d=inner(groups=2)),
    "depthwise": case([K] * 2, lambda b, x: b.d(b.c(x)), c=conv(), d=inner(groups=4)),
    "depthwise, more out": case(
        [K] * 2, lambda b, x: b.d(b.c(x)), c=conv(), d=conv(4, 8, 3, groups=4, bias=False)
    ),
    "two users": case([K, "relu", "mul"], after_conv(lambda y: F.relu(y) * y), c=conv()),
    "run twice": case([K, "neg", K, "mul"], lambda b, x: b.c(x) * b.c(-x), c=conv()),
    # By functions
    "function": case([K], lambda b, x: F.conv2d(x, b.w, b.b), w=WEIGHT, b=BIAS),
    "function, no bias": case([K], lambda b, x: torch.conv2d(x, b.w), w=WEIGHT),
    "function, by place": case(
        [K], lambda b, x: F.conv2d(x, b.w, b.b, 2, (1, 0), 1), w=WEIGHT, b=BIAS
    ),
    "function, by name": case(
        [K], lambda b, x: F.conv2d(x, weight=b.w, bias=b.b, dilation=(1, 2), padding=2),
        w=WEIGHT, b=BIAS,
    ),
    "function, grouped": case([K], lambda b, x: F.conv2d(x, b.w, groups=3), w=WEIGHT[:3, :1]),
    "function, then norm and relu": case(
        [K], lambda b, x: F.relu(b.n(F.conv2d(x, b.w, b.b))), w=WEIGHT, b=BIAS, n=norm()
    ),
    "function, computed weight": case(
        ["sub", "conv2d"], lambda b, x: F.conv2d(x, b.w - 0.5, b.b), w=WEIGHT, b=BIAS
    ),
    "function, computed bias": case(
        ["mul", "conv2d"], lambda b, x: F.conv2d(x, b.w, b.b * 2), w=WEIGHT, b=BIAS
    ),
    "function, padding same": case(
        ["conv2d"], lambda b, x: F.conv2d(x, b.w, padding="same"), w=WEIGHT
    ),
    "function, padding same, after a kernel": case(
        ["kernel", "conv2d"], lambda b, x: F.conv2d(b.c(x), b.w, padding="same"),
        c=conv(3, 8, 5), w=torch.randn(4, 8, 3, 3) / 9,
    ),
    # Rare ways to convolve
    "padding same": case(["Conv2d"], after_conv(lambda y: y), c=conv(padding="same")),
    "padding valid": case(["Conv2d"], after_conv(lambda y: y), c=conv(padding="valid")),
    "padding reflects": case(
        ["Conv2d"], after_conv(lambda y: y), c=conv(padding_mode="reflect", padding=(2, 1))
    ),
    "padding is circular": case(
        ["Conv2d"], after_conv(lambda y: y), c=conv(padding_mode="circular")
    ),
    "transposed": case(["ConvTranspose2d"], after_conv(lambda y: y), c=nn.ConvTranspose2d(3, 4, 2)),
    # Batch norms
    "norm": case([K], lambda b, x: b.n(b.c(x)), c=conv(), n=norm()),
    "norm, no bias": case([K], lambda b, x: b.n(b.c(x)), c=conv(bias=False), n=norm()),
    "norm, plain": case([K], lambda b, x: b.n(b.c(x)), c=conv(), n=norm(affine=False)),
    "norm, plain, no bias": case(
        [K], lambda b, x: b.n(b.c(x)), c=conv(bias=False), n=norm(affine=False)
    ),
    "norm, large eps": case([K], lambda b, x: b.n(b.c(x)), c=conv(), n=norm(eps=0.5)),
    "norm, grouped": case(
        [K, K], lambda b, x: b.n(b.d(b.c(x))), c=conv(), d=inner(groups=2), n=norm()
    ),
    "norm, of each batch": case(
        [K, "BatchNorm2d"], lambda b, x: b.n(b.c(x)),
        c=conv(), n=norm(track_running_stats=False),
    ),
    "norm before": case(["BatchNorm2d", K], lambda b, x: b.c(b.n(x)), c=conv(), n=norm(3)),
    "norm alone": case(["BatchNorm2d"], lambda b, x: b.n(x), n=norm(3)),
    "norm twice": case(
        [K, "BatchNorm2d"], lambda b, x: b.m(b.n(b.c(x))), c=conv(), n=norm(), m=norm()
    ),
    "norm after relu": case(
        [K, "BatchNorm2d"], lambda b, x: b.n(F.relu(b.c(x))), c=conv(), n=norm()
    ),
    "norm of a value with two users": case(
        [K, "BatchNorm2d", "mul"], lambda b, x: b.n(y := b.c(x)) * y, c=conv(), n=norm()
    ),
    "another norm": case(
        [K, "GroupNorm"], lambda b, x: b.n(b.c(x)), c=conv(), n=nn.GroupNorm(2, 4)
    ),
    # Activations
    **{
        f"then {name}": case([K], lambda b, x: b.a(b.c(x)), c=strong(), a=activation)
        for name, activation in {
            "ReLU": nn.ReLU(), "ReLU in place": nn.ReLU(True), "ReLU6": nn.ReLU6(),
            "ReLU6 in place": nn.ReLU6(True), "SiLU": nn.SiLU(), "SiLU in place": nn.SiLU(True),
            "Hardswish": nn.Hardswish(), "Hardswish in place": nn.Hardswish(True),
        }.items()
    },
    **{
        f"then {name}()": case([K], after_conv(function), c=strong())
        for name, function in {
            "relu": F.relu, "relu_": F.relu_, "torch.relu": torch.relu, "torch.relu_": torch.relu_,
            "relu, in place": lambda y: F.relu(y, inplace=True), "relu6": F.relu6,
            "relu6, in place": lambda y: F.relu6(y, True), "silu": F.silu,
            "silu, in place": lambda y: F.silu(y, inplace=True), "hardswish": F.hardswish,
            ".relu": lambda y: y.relu(), ".relu_": lambda y: y.relu_(),
        }.items()
    },
    **{
        f"then {type(activation).__name__}": case(
            [K, type(activation).__name__], lambda b, x: b.a(b.c(x)), c=conv(), a=activation
        )
        for activation in (
            nn.GELU(), nn.LeakyReLU(), nn.PReLU(4), nn.ELU(), nn.Sigmoid(), nn.Tanh(),
            nn.Hardtanh(), nn.Hardsigmoid(), nn.Mish(), nn.Softplus(), nn.Dropout(),
        )
    },
    "then norm and relu": case([K], lambda b, x: F.relu(b.n(b.c(x))), c=conv(), n=norm()),
    "then relu twice": case([K, "relu6"], after_conv(lambda y: F.relu6(F.relu(y))), c=conv()),
    "a relu alone": case(["relu"], lambda b, x: F.relu(x)),
    # Sums
    **{
        f"sum by {name}": case([K, K], of_a(add), a=conv(), c=inner())
        for name, add in {
            "+": lambda b, y: y + b.c(y),
            "+, the other way": lambda b, y: b.c(y) + y,
            "+=": lambda b, y: operator.iadd(b.c(y), y),
            "+=, the other way": lambda b, y: operator.iadd(y, b.c(y)),
            "torch.add": lambda b, y: torch.add(b.c(y), y),
            ".add": lambda b, y: y.add(b.c(y)),
            ".add_": lambda b, y: b.c(y).add_(y),
        }.items()
    },
    **{
        f"sum, then {name}": case(
            [K, K], of_a(add), a=conv(), c=inner(), n=norm(), r=nn.ReLU(True)
        )
        for name, add in {
            "ReLU": lambda b, y: b.r(b.c(y) + y),
            "relu": lambda b, y: F.relu(y + b.n(b.c(y))),
            "relu_": lambda b, y: (b.n(b.c(y)) + y).relu_(),
        }.items()
    },
    **{
        f"sum, then {then.__name__}": case(
            [K, K], of_a(lambda b, y, then=then: then(b.c(y) + y)),
            a=conv(), c=inner(),
        )
        for then in (F.relu6, F.silu, F.hardswish)
    },
    "sum with the input": case([K], lambda b, x: b.c(x) + x, c=conv(3, 3, 3)),
    "sum with the input, then relu": case([K], lambda b, x: F.relu(x + b.c(x)), c=conv(3, 3, 3)),
    "sum with a pooled value": case(
        [K, "max_pool2d", K], of_a(lambda b, y: F.max_pool2d(y, 3, 1, 1) + b.c(y)),
        a=conv(), c=inner(),
    ),
    "sum after an activation": case(
        [K, K, "add"], of_a(lambda b, y: F.relu(b.c(y)) + y), a=conv(), c=inner()
    ),
    "sum of two convolutions": case([K, K], lambda b, x: b.a(x) + b.c(x), a=conv(), c=conv()),
    "sum of two convolutions with norms": case(
        [K, K], lambda b, x: F.relu(b.n(b.a(x)) + b.m(b.c(x))),
        a=conv(), c=conv(bias=False), n=norm(), m=norm(affine=False),
    ),
    "sum of three": case(
        [K] * 3, lambda b, x: b.a(x) + b.c(x) + b.d(x), a=conv(), c=conv(), d=conv()
    ),
    "sum with a parameter": case(
        None, lambda b, x: b.c(x) + b.p, c=conv(), p=torch.randn(1, 4, HEIGHT, WIDTH)
    ),
    "sum with a number": case([K, "add"], after_conv(lambda y: y + 1), c=conv()),
    "sum with a spread value": case(
        [K, K, "mean", "add"], lambda b, x: b.c(x) + b.a(x).mean((2, 3), keepdim=True),
        a=conv(), c=conv(),
    ),
    "spread sum, the other way": case(
        [K, "mean", K, "add"], lambda b, x: b.a(x) + b.c(x.mean((2, 3), keepdim=True)), a=conv(),
        c=conv(3, 4, 1, padding=0),
    ),
    "spread sum": case([K, K, "add"], lambda b, x: b.c(x) + b.a(x), a=conv(), c=conv(3, 1, 3)),
    "sum with itself": case([K, "add"], after_conv(lambda y: y + y), c=conv()),
    "weighted sum": case(
        [K, K, "add"], of_a(lambda b, y: torch.add(b.c(y), y, alpha=2)), a=conv(), c=inner()
    ),
    "sum with a scaled value": case(
        [K, K, "mul", "add"], of_a(lambda b, y: y + b.c(y) * 0.3), a=conv(), c=inner()
    ),
    "difference": case([K, K, "sub"], of_a(lambda b, y: b.c(y) - y), a=conv(), c=inner()),
    # What is added is needed elsewhere too
    "added, then added": case(
        [K, K, K, "add"], of_a(lambda b, y: (b.c(b.d(y)) + y) + y), **PARTS
    ),
    "added, then pooled": case(
        [K, K, K, "mul", "max_pool2d", "cat"],
        of_a(lambda b, y: torch.cat([(b.c(b.d(y)) + y) * 2, F.max_pool2d(y, 3, 1, 1)], 1)), **PARTS
    ),
    "added, then convolved": case(
        [K, K, K, K, "mul"], of_a(lambda b, y: (b.c(b.d(y)) + y) * b.e(y)), **PARTS
    ),
    "convolved, then added": case(
        [K, K, K, K, "mul"], of_a(lambda b, y: b.e(y) * (b.c(b.d(y)) + y)), **PARTS
    ),
    "added by two": case(
        [K] * 5 + ["mul"], of_a(lambda b, y: (b.c(b.d(y)) + y) * (b.e(b.d(y)) + y)), **PARTS
    ),
    "added, a part of it kept": case(
        [K, "getitem", K, K, "cat"],
        of_a(lambda b, y: torch.cat([y[:, :2], b.c(b.d(y)) + y], 1)), **PARTS
    ),
    "added to what is made of it": case([K, K], of_a(lambda b, y: b.c(y) + y), **PARTS),
    "the sum of a sum": case(
        [K] * 5, of_a(lambda b, y: b.e(z := b.c(b.d(y)) + y) + b.d(z)), **PARTS
    ),
    "blocks": case(
        [K] * 5, of_a(lambda b, y: b.block(b.block(y, b.d, b.c), b.f, b.e)),
        a=conv(), c=inner(), d=inner(bias=False), e=inner(groups=4), f=inner(), block=Block(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, (_, steps) in CASES.items() if steps])
def test_what_belongs_together_is_one_kernel_and_the_rest_is_left_alone(name: str) -> None:
    body, expected = CASES[name]
    assert steps(fused(body)) == expected


@pytest.mark.parametrize("name", CASES)
def test_fused_kernels_compute_the_same(name: str) -> None:
    body = CASES[name].body
    assert_same(fused(body), body)


@pytest.mark.parametrize("name", CASES)
def test_in_bfloat16_they_compute_nearly_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However short: those of these cases are.
    monkeypatch.setattr(fusion, "_LONG_SUM", 1)
    body = CASES[name].body
    assert_same(fused(body, BFLOAT16), body, BFLOAT16)


# bfloat16


@pytest.mark.parametrize(
    ("last", "products", "rounded"),
    [
        (conv(3, 4, 3), 27, False),
        (conv(3, 4, 5), 75, True),
        (conv(3, 21 * 3, 3, groups=3), 9, False),
        (conv(3, 4, (7, 3)), 63, False),
        (nn.Sequential(conv(3, 16, 1), nn.Conv2d(16, 4, 2)), 64, True),
        (nn.Sequential(conv(3, 64, 1), nn.Conv2d(64, 4, 1)), 64, True),
        (nn.Sequential(conv(3, 63, 1), nn.Conv2d(63, 4, 1)), 63, False),
        (nn.Sequential(conv(3, 64, 1), nn.Conv2d(64, 64, 3, groups=64)), 9, False),
    ],
)
def test_only_long_sums_are_rounded_to_bfloat16(
    last: nn.Module, products: int, rounded: bool
) -> None:
    convolutions = [one for one in last.modules() if isinstance(one, nn.Conv2d)]
    assert convolutions[-1].weight[0].numel() == products
    body = Body(lambda b, x: F.relu(b.last(x)), last=last)
    trunk = fused(body, BFLOAT16)
    found = trunk(inputs_of(2))
    # The trunk gives float32; of rounded numbers the last 16 bits are zero.
    assert found.dtype == FLOAT32
    assert torch.equal(found, found.bfloat16().float()) is rounded
    assert fusion.rounds(trunk) is rounded


def test_what_no_activation_follows_is_not_rounded_but_before_a_sum_that_one_follows() -> None:
    convolutions = {"one": conv(3, 4, 5), "other": conv(3, 4, 5), "third": conv(3, 4, 5)}

    def rounded(body: Callable[..., Tensor]) -> list[bool]:
        trunk = fused(Body(body, **convolutions), BFLOAT16)
        return [module.precision is BFLOAT16 for module in trunk.children() if module]

    assert rounded(lambda b, x: b.one(x)) == [False]
    assert rounded(lambda b, x: F.relu(b.one(x))) == [True]
    assert rounded(lambda b, x: b.one(x) + b.other(x)) == [False, False]
    assert rounded(lambda b, x: F.relu(b.one(x) + b.other(x))) == [True, True]
    # Read elsewhere too, it is more than a summand.
    assert rounded(lambda b, x: F.relu(b.one(x) + (y := b.other(x))) * y) == [True, False]


# The same, of any trunk


class Program(nn.Module):
    """Random steps, each from earlier values, so that many are read again late."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.first = conv(3, 4, 3, bias=rng.random() < 0.5)
        self.steps: list[tuple[str, int, int]] = []
        self.parts = nn.ModuleList()
        for known in range(1, rng.randint(6, 16)):
            # Now and then an early value, mostly the last.
            one, other = (rng.choice([known - 1, rng.randrange(known)]) for _ in range(2))
            kind = rng.choice(["conv"] * 5 + ["sum"] * 5 + ["relu", "norm", "pool", "mul", "cat"])
            part: nn.Module = nn.Identity()
            if kind == "conv":
                torch.manual_seed(seed * 100 + known)
                part = nn.Conv2d(
                    4, 4, *rng.choice([(1, 1, 0), (3, 1, 1)]), bias=rng.random() < 0.5,
                    groups=rng.choice([1, 1, 2, 4]),
                )  # fmt: skip
            elif kind == "norm":
                part = norm()
            self.parts.append(part)
            self.steps.append((kind, one, other))
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        values = [self.first(inputs)]
        for (kind, one, other), part in zip(self.steps, self.parts, strict=True):
            a, b = values[one], values[other]
            values.append(
                part(a) if kind in ("conv", "norm")
                else a + b if kind == "sum"
                else F.relu(a) if kind == "relu"
                else F.max_pool2d(a, 3, 1, 1) if kind == "pool"
                else torch.tanh(a) * b if kind == "mul"
                else torch.cat([a[:, :2], b[:, 2:]], 1)
            )  # fmt: skip
        # A mean over all of them keeps each needed to the end of what is made of it.
        return values[-1] + 0.1 * values[len(values) // 2]


def test_whatever_a_trunk_does_its_kernels_compute_the_same() -> None:
    kernels = 0
    for seed in range(120):
        program = Program(seed)
        trunk = fused(program)
        kernels += steps(trunk).count(K)
        for batch in (1, 3):
            inputs = inputs_of(batch, seed)
            apart_by = apart(trunk(inputs), program(inputs))
            assert apart_by < 1e-5, f"program {seed}: {program.steps}"
    assert kernels > 300


# What is left of the network


@pytest.mark.parametrize("name", ["blocks", "sum of two convolutions with norms", "sum, then relu"])
def test_the_network_that_a_trunk_comes_from_stays_as_it_was(name: str) -> None:
    body = CASES[name].body
    before = {key: value.clone() for key, value in body.state_dict().items()}
    expected = body(inputs_of(2))
    for precision in (FLOAT32, BFLOAT16):
        fused(body, precision)(inputs_of(2))
    assert body.state_dict().keys() == before.keys()
    for key, value in body.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(body(inputs_of(2)), expected)


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16])
def test_a_trunk_leaves_its_input_as_it_was(precision: torch.dtype) -> None:
    for name in ("sum with the input, then relu", "then ReLU in place", "norm before"):
        inputs = inputs_of(2)
        fused(CASES[name].body, precision)(inputs)
        assert torch.equal(inputs, inputs_of(2)), name


def test_the_modules_that_no_kernel_needs_are_let_go() -> None:
    trunk = fused(CASES["blocks"].body)
    assert [name.rstrip("0123456789") for name, _ in trunk.named_children()] == ["fused_"] * 5


# What is computed before anything is rounded


def parts_of(body: Body) -> tuple[fx.GraphModule | None, fx.GraphModule]:
    return fusion.split_before_rounding(fused(body))


def test_what_is_not_to_be_rounded_comes_first_by_itself() -> None:
    body = Body(
        lambda b, x: F.relu(b.last(b.pool(F.relu(b.first(x))))),
        first=conv(), pool=nn.MaxPool2d(2), last=nn.Conv2d(4, 5, 4, padding=2),
    )  # fmt: skip
    first, rest = parts_of(body)
    assert first is not None
    assert steps(first) == ["kernel", "MaxPool2d"]
    assert steps(rest) == ["kernel"]
    for batch in BATCHES:
        assert_close(rest(first(inputs_of(batch))), body(inputs_of(batch)), rtol=1e-4, atol=1e-5)


def test_where_all_of_it_bears_rounding_nothing_comes_first() -> None:
    first, rest = parts_of(Body(lambda b, x: F.relu(b.c(x)), c=conv(3, 4, 5)))
    assert first is None
    assert steps(rest) == ["kernel"]


@pytest.mark.parametrize(
    "run",
    [
        # Nothing of it bears it; something after the first that does; a value that goes around it.
        lambda b, x: F.relu(b.short(x)),
        lambda b, x: b.inner(F.relu(b.long(x))),
        lambda b, x: F.relu(b.wide(y := F.relu(b.short(x)))) + y + b.short(x),
    ],
)
def test_what_cannot_be_rounded_but_for_its_beginning_is_not(run: Callable[..., Any]) -> None:
    body = Body(
        run, short=conv(), long=conv(3, 4, 5, padding=2), inner=inner(),
        wide=nn.Conv2d(4, 4, 5, padding=2),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"not all of its convolutions|more than one value"):
        parts_of(body)
