"""Fused trunks: which operations are fused, which are not, and that the outputs stay the same."""

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

from camserve.networks import fusion, mixed_precision

FUSED = "FusedConv2d"
HEIGHT, WIDTH = 9, 7  # different, so that a swap of both fails
BATCHES = (1, 2, 5)
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


class FunctionModule(nn.Module):
    """A trunk that calls a function; the keywords are its modules and parameters."""

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


def fused(body: nn.Module, dtype: torch.dtype = FLOAT32) -> fx.GraphModule:
    return fusion.fuse(fx.symbolic_trace(body), inputs_of(1), dtype)


def steps(trunk: fx.GraphModule) -> list[str]:
    """What a trunk calls, in order: :data:`FUSED`, or the name of a module or function."""
    names = []
    for node in trunk.graph.nodes:
        if node.op == "call_module":
            name = type(trunk.get_submodule(node.target)).__name__
            names.append(FUSED if node.target.startswith("fused") else name)
        elif node.op in ("call_function", "call_method"):
            names.append(getattr(node.target, "__name__", node.target))
    # In float32 the cast does nothing.
    return [name for name in names if name != "float"]


def relative_error(output: Tensor, expected: Tensor) -> float:
    return float((output - expected).norm() / expected.norm())


def assert_same(trunk: nn.Module, body: nn.Module, dtype: torch.dtype = FLOAT32) -> None:
    """The outputs are the same for every batch size and memory format."""
    for batch in BATCHES:
        for layout in (torch.contiguous_format, torch.channels_last):
            inputs = inputs_of(batch, seed=batch).contiguous(memory_format=layout)
            expected = body(inputs.clone())
            output = trunk(inputs)
            assert output.dtype == FLOAT32
            assert output.shape == expected.shape
            if dtype is FLOAT32:
                tolerance = 1e-5 + 1e-4 * expected.abs()
                error = float(((output - expected).abs() / tolerance).max())
            else:
                # bfloat16 has 8 significant bits: each rounding is off by 1/512 at most.
                error = relative_error(output, expected) / 0.02
            assert error < 1


@torch.no_grad()
def norm(channels: int = 4, **options: Any) -> nn.BatchNorm2d:
    """A batch norm as after training: no statistic or parameter is 0 or 1."""
    batch_norm = nn.BatchNorm2d(channels, **options)
    for name, values in (
        ("running_mean", [0.5, -1, 0.1, 2]),
        ("running_var", [0.3, 2, 1e-4, 1.7]),
        ("weight", [1.5, -0.7, 0.01, 0.9]),
        ("bias", [-0.2, 0.4, 1, -1]),
    ):
        if getattr(batch_norm, name) is not None:
            getattr(batch_norm, name).copy_(torch.tensor(values)[torch.arange(channels) % 4])
    return batch_norm


def conv(*arguments: Any, **options: Any) -> nn.Conv2d:
    """By default from 3 to 4 channels, with the same height and width."""
    torch.manual_seed(0)
    return nn.Conv2d(*(arguments or (3, 4, 3)), **{"padding": 1, **options})


def strong() -> nn.Conv2d:
    """Its outputs lie on both sides of 0, 3 and 6, where activations have their kinks."""
    convolution = conv()
    convolution.weight.data *= 8
    return convolution


def inner(**options: Any) -> nn.Conv2d:
    """From 4 to 4 channels, with the same height and width."""
    torch.manual_seed(1)
    return nn.Conv2d(4, 4, 3, padding=1, **options)


class Case(NamedTuple):
    """A trunk, and its expected :func:`steps` once it is fused; None where they do not matter."""

    body: FunctionModule
    steps: list[str] | None


def case(steps: Sequence[str] | None, run: Callable[..., Any], **parts: nn.Module | Tensor) -> Case:
    """Arguments as of :class:`Case` and :class:`FunctionModule`."""
    return Case(FunctionModule(run, **parts), None if steps is None else list(steps))


def after_conv(step: Any) -> Callable[..., Any]:
    """A convolution, then a step."""
    return lambda body, x: step(body.c(x))


def of_a(step: Any) -> Callable[..., Any]:
    """A step on the output of the convolution ``a``."""
    return lambda body, x: step(body, body.a(x))


class Block(nn.Module):
    """A residual block of two convolutions."""

    def forward(self, inputs: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
        return F.relu(second(F.relu(first(inputs))) + inputs)


#: mypy takes Tensor.__iadd__ for untyped.
iadd: Callable[[Any, Any], Any] = operator.iadd
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
    "a convolution": case([FUSED], after_conv(lambda y: y), c=conv()),
    **{
        name: case([FUSED], after_conv(lambda y: y), c=conv(**options))
        for name, options in GEOMETRY.items()
    },
    "1x1": case([FUSED], after_conv(lambda y: y), c=conv(3, 8, 1, padding=0)),
    "5x1": case([FUSED], after_conv(lambda y: y), c=conv(3, 8, (5, 1), padding=(2, 0))),
    "many channels": case(
        [FUSED] * 2, lambda b, x: b.d(b.c(x)), c=conv(3, 40, 1), d=conv(40, 24, 3)
    ),
    "grouped": case([FUSED] * 2, lambda b, x: b.d(b.c(x)), c=conv(), d=inner(groups=2)),
    "depthwise": case([FUSED] * 2, lambda b, x: b.d(b.c(x)), c=conv(), d=inner(groups=4)),
    "depthwise, more out": case(
        [FUSED] * 2, lambda b, x: b.d(b.c(x)), c=conv(), d=conv(4, 8, 3, groups=4, bias=False)
    ),
    "two users": case([FUSED, "relu", "mul"], after_conv(lambda y: F.relu(y) * y), c=conv()),
    "run twice": case([FUSED, "neg", FUSED, "mul"], lambda b, x: b.c(x) * b.c(-x), c=conv()),
    # By functions
    "function": case([FUSED], lambda b, x: F.conv2d(x, b.w, b.b), w=WEIGHT, b=BIAS),
    "function, no bias": case([FUSED], lambda b, x: torch.conv2d(x, b.w), w=WEIGHT),
    "function, by position": case(
        [FUSED], lambda b, x: F.conv2d(x, b.w, b.b, 2, (1, 0), 1), w=WEIGHT, b=BIAS
    ),
    "function, by name": case(
        [FUSED], lambda b, x: F.conv2d(x, weight=b.w, bias=b.b, dilation=(1, 2), padding=2),
        w=WEIGHT, b=BIAS,
    ),
    "function, grouped": case([FUSED], lambda b, x: F.conv2d(x, b.w, groups=3), w=WEIGHT[:3, :1]),
    "function, then norm and relu": case(
        [FUSED], lambda b, x: F.relu(b.n(F.conv2d(x, b.w, b.b))), w=WEIGHT, b=BIAS, n=norm()
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
    "function, padding same, after a fused convolution": case(
        [FUSED, "conv2d"], lambda b, x: F.conv2d(b.c(x), b.w, padding="same"),
        c=conv(3, 8, 5), w=torch.randn(4, 8, 3, 3) / 9,
    ),
    # Convolutions that are not fused
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
    "norm": case([FUSED], lambda b, x: b.n(b.c(x)), c=conv(), n=norm()),
    "norm, no bias": case([FUSED], lambda b, x: b.n(b.c(x)), c=conv(bias=False), n=norm()),
    "norm, plain": case([FUSED], lambda b, x: b.n(b.c(x)), c=conv(), n=norm(affine=False)),
    "norm, plain, no bias": case(
        [FUSED], lambda b, x: b.n(b.c(x)), c=conv(bias=False), n=norm(affine=False)
    ),
    "norm, large eps": case([FUSED], lambda b, x: b.n(b.c(x)), c=conv(), n=norm(eps=0.5)),
    "norm, grouped": case(
        [FUSED, FUSED], lambda b, x: b.n(b.d(b.c(x))), c=conv(), d=inner(groups=2), n=norm()
    ),
    "norm, of each batch": case(
        [FUSED, "BatchNorm2d"], lambda b, x: b.n(b.c(x)),
        c=conv(), n=norm(track_running_stats=False),
    ),
    "norm before": case(["BatchNorm2d", FUSED], lambda b, x: b.c(b.n(x)), c=conv(), n=norm(3)),
    "norm alone": case(["BatchNorm2d"], lambda b, x: b.n(x), n=norm(3)),
    "norm twice": case(
        [FUSED, "BatchNorm2d"], lambda b, x: b.m(b.n(b.c(x))), c=conv(), n=norm(), m=norm()
    ),
    "norm after relu": case(
        [FUSED, "BatchNorm2d"], lambda b, x: b.n(F.relu(b.c(x))), c=conv(), n=norm()
    ),
    "norm of a value with two users": case(
        [FUSED, "BatchNorm2d", "mul"], lambda b, x: b.n(y := b.c(x)) * y, c=conv(), n=norm()
    ),
    "another norm": case(
        [FUSED, "GroupNorm"], lambda b, x: b.n(b.c(x)), c=conv(), n=nn.GroupNorm(2, 4)
    ),
    # Activations
    **{
        f"then {name}": case([FUSED], lambda b, x: b.a(b.c(x)), c=strong(), a=activation)
        for name, activation in {
            "ReLU": nn.ReLU(), "ReLU in place": nn.ReLU(True), "ReLU6": nn.ReLU6(),
            "ReLU6 in place": nn.ReLU6(True), "SiLU": nn.SiLU(), "SiLU in place": nn.SiLU(True),
            "Hardswish": nn.Hardswish(), "Hardswish in place": nn.Hardswish(True),
        }.items()
    },
    **{
        f"then {name}()": case([FUSED], after_conv(function), c=strong())
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
            [FUSED, type(activation).__name__], lambda b, x: b.a(b.c(x)), c=conv(), a=activation
        )
        for activation in (
            nn.GELU(), nn.LeakyReLU(), nn.PReLU(4), nn.ELU(), nn.Sigmoid(), nn.Tanh(),
            nn.Hardtanh(), nn.Hardsigmoid(), nn.Mish(), nn.Softplus(), nn.Dropout(),
        )
    },
    "then norm and relu": case([FUSED], lambda b, x: F.relu(b.n(b.c(x))), c=conv(), n=norm()),
    "then relu twice": case([FUSED, "relu6"], after_conv(lambda y: F.relu6(F.relu(y))), c=conv()),
    "a relu alone": case(["relu"], lambda b, x: F.relu(x)),
    # Sums
    **{
        f"sum by {name}": case([FUSED, FUSED], of_a(add), a=conv(), c=inner())
        for name, add in {
            "+": lambda b, y: y + b.c(y),
            "+, operands swapped": lambda b, y: b.c(y) + y,
            "+=": lambda b, y: iadd(b.c(y), y),
            "+=, operands swapped": lambda b, y: iadd(y, b.c(y)),
            "torch.add": lambda b, y: torch.add(b.c(y), y),
            ".add": lambda b, y: y.add(b.c(y)),
            ".add_": lambda b, y: b.c(y).add_(y),
        }.items()
    },
    **{
        f"sum, then {name}": case(
            [FUSED, FUSED], of_a(add), a=conv(), c=inner(), n=norm(), r=nn.ReLU(True)
        )
        for name, add in {
            "ReLU": lambda b, y: b.r(b.c(y) + y),
            "relu": lambda b, y: F.relu(y + b.n(b.c(y))),
            "relu_": lambda b, y: (b.n(b.c(y)) + y).relu_(),
        }.items()
    },
    **{
        f"sum, then {then.__name__}": case(
            [FUSED, FUSED], of_a(lambda b, y, then=then: then(b.c(y) + y)),
            a=conv(), c=inner(),
        )
        for then in (F.relu6, F.silu, F.hardswish)
    },
    "sum with the input": case([FUSED], lambda b, x: b.c(x) + x, c=conv(3, 3, 3)),
    "sum with the input, then relu": case(
        [FUSED], lambda b, x: F.relu(x + b.c(x)), c=conv(3, 3, 3)
    ),
    "sum with a pooled value": case(
        [FUSED, "max_pool2d", FUSED], of_a(lambda b, y: F.max_pool2d(y, 3, 1, 1) + b.c(y)),
        a=conv(), c=inner(),
    ),
    "sum after an activation": case(
        [FUSED, FUSED, "add"], of_a(lambda b, y: F.relu(b.c(y)) + y), a=conv(), c=inner()
    ),
    "sum of two convolutions": case(
        [FUSED, FUSED], lambda b, x: b.a(x) + b.c(x), a=conv(), c=conv()
    ),
    "sum of two convolutions with norms": case(
        [FUSED, FUSED], lambda b, x: F.relu(b.n(b.a(x)) + b.m(b.c(x))),
        a=conv(), c=conv(bias=False), n=norm(), m=norm(affine=False),
    ),
    "sum of three": case(
        [FUSED] * 3, lambda b, x: b.a(x) + b.c(x) + b.d(x), a=conv(), c=conv(), d=conv()
    ),
    "sum with a parameter": case(
        None, lambda b, x: b.c(x) + b.p, c=conv(), p=torch.randn(1, 4, HEIGHT, WIDTH)
    ),
    "sum with a number": case([FUSED, "add"], after_conv(lambda y: y + 1), c=conv()),
    "sum with a broadcast value": case(
        [FUSED, FUSED, "mean", "add"], lambda b, x: b.c(x) + b.a(x).mean((2, 3), keepdim=True),
        a=conv(), c=conv(),
    ),
    "broadcast sum, operands swapped": case(
        [FUSED, "mean", FUSED, "add"], lambda b, x: b.a(x) + b.c(x.mean((2, 3), keepdim=True)),
        a=conv(), c=conv(3, 4, 1, padding=0),
    ),
    "broadcast sum": case(
        [FUSED, FUSED, "add"], lambda b, x: b.c(x) + b.a(x), a=conv(), c=conv(3, 1, 3)
    ),
    "sum with itself": case([FUSED, "add"], after_conv(lambda y: y + y), c=conv()),
    "weighted sum": case(
        [FUSED, FUSED, "add"], of_a(lambda b, y: torch.add(b.c(y), y, alpha=2)), a=conv(), c=inner()
    ),
    "sum with a scaled value": case(
        [FUSED, FUSED, "mul", "add"], of_a(lambda b, y: y + b.c(y) * 0.3), a=conv(), c=inner()
    ),
    "difference": case([FUSED, FUSED, "sub"], of_a(lambda b, y: b.c(y) - y), a=conv(), c=inner()),
    # The residual operand has other users
    "added, then added": case(
        [FUSED, FUSED, FUSED, "add"], of_a(lambda b, y: (b.c(b.d(y)) + y) + y), **PARTS
    ),
    "added, then pooled": case(
        [FUSED, FUSED, FUSED, "mul", "max_pool2d", "cat"],
        of_a(lambda b, y: torch.cat([(b.c(b.d(y)) + y) * 2, F.max_pool2d(y, 3, 1, 1)], 1)), **PARTS
    ),
    "added, then convolved": case(
        [FUSED, FUSED, FUSED, FUSED, "mul"], of_a(lambda b, y: (b.c(b.d(y)) + y) * b.e(y)), **PARTS
    ),
    "convolved, then added": case(
        [FUSED, FUSED, FUSED, FUSED, "mul"], of_a(lambda b, y: b.e(y) * (b.c(b.d(y)) + y)), **PARTS
    ),
    "added by two": case(
        [FUSED] * 5 + ["mul"], of_a(lambda b, y: (b.c(b.d(y)) + y) * (b.e(b.d(y)) + y)), **PARTS
    ),
    "added, a part of it kept": case(
        [FUSED, "getitem", FUSED, FUSED, "cat"],
        of_a(lambda b, y: torch.cat([y[:, :2], b.c(b.d(y)) + y], 1)), **PARTS
    ),
    "added to its own convolution": case([FUSED, FUSED], of_a(lambda b, y: b.c(y) + y), **PARTS),
    "the sum of a sum": case(
        [FUSED] * 5, of_a(lambda b, y: b.e(z := b.c(b.d(y)) + y) + b.d(z)), **PARTS
    ),
    "blocks": case(
        [FUSED] * 5, of_a(lambda b, y: b.block(b.block(y, b.d, b.c), b.f, b.e)),
        a=conv(), c=inner(), d=inner(bias=False), e=inner(groups=4), f=inner(), block=Block(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, (_, steps) in CASES.items() if steps])
def test_each_case_has_the_expected_steps(name: str) -> None:
    body, expected = CASES[name]
    assert steps(fused(body)) == expected


@pytest.mark.parametrize("name", CASES)
def test_a_fused_trunk_computes_the_same(name: str) -> None:
    body = CASES[name].body
    assert_same(fused(body), body)


@pytest.mark.parametrize("name", CASES)
def test_a_fused_trunk_in_bfloat16_computes_nearly_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The sums of these cases are short.
    monkeypatch.setattr(fusion, "_MIN_BF16_PRODUCTS", 1)
    body = CASES[name].body
    assert_same(fused(body, BFLOAT16), body, BFLOAT16)


# bfloat16


@pytest.mark.parametrize(
    ("last", "products", "is_bfloat16"),
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
def test_only_sums_of_64_products_or_more_are_in_bfloat16(
    last: nn.Module, products: int, is_bfloat16: bool
) -> None:
    convolutions = [module for module in last.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions[-1].weight[0].numel() == products
    body = FunctionModule(lambda b, x: F.relu(b.last(x)), last=last)
    trunk = fused(body, BFLOAT16)
    output = trunk(inputs_of(2))
    # The output is float32; the last 16 bits of numbers from bfloat16 are zero.
    assert output.dtype == FLOAT32
    assert torch.equal(output, output.bfloat16().float()) is is_bfloat16
    assert mixed_precision.has_bf16(trunk) is is_bfloat16


def test_only_convolutions_with_an_activation_or_in_a_sum_with_an_activation_are_in_bfloat16() -> (
    None
):
    convolutions = {"c": conv(3, 4, 5), "d": conv(3, 4, 5), "e": conv(3, 4, 5)}

    def is_bfloat16(body: Callable[..., Tensor]) -> list[bool]:
        trunk = fused(FunctionModule(body, **convolutions), BFLOAT16)
        return [module.dtype == BFLOAT16 for module in trunk.children() if module]

    assert is_bfloat16(lambda b, x: b.c(x)) == [False]
    assert is_bfloat16(lambda b, x: F.relu(b.c(x))) == [True]
    assert is_bfloat16(lambda b, x: b.c(x) + b.d(x)) == [False, False]
    assert is_bfloat16(lambda b, x: F.relu(b.c(x) + b.d(x))) == [True, True]
    # A residual operand with another user.
    assert is_bfloat16(lambda b, x: F.relu(b.c(x) + (y := b.d(x))) * y) == [True, False]


# Random trunks


class Program(nn.Module):
    """Random steps; each reads any earlier values, so that many are read long after."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.first = conv(3, 4, 3, bias=rng.random() < 0.5)
        self.steps: list[tuple[str, int, int]] = []
        self.parts = nn.ModuleList()
        for known in range(1, rng.randint(6, 16)):
            # Mostly the last value, at times an early one.
            first, second = (rng.choice([known - 1, rng.randrange(known)]) for _ in range(2))
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
            self.steps.append((kind, first, second))
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        values = [self.first(inputs)]
        for (kind, first, second), part in zip(self.steps, self.parts, strict=True):
            a, b = values[first], values[second]
            values.append(
                part(a) if kind in ("conv", "norm")
                else a + b if kind == "sum"
                else F.relu(a) if kind == "relu"
                else F.max_pool2d(a, 3, 1, 1) if kind == "pool"
                else torch.tanh(a) * b if kind == "mul"
                else torch.cat([a[:, :2], b[:, 2:]], 1)
            )  # fmt: skip
        # An early value is read at the end, too.
        output: Tensor = values[-1] + 0.1 * values[len(values) // 2]
        return output


def test_random_trunks_compute_the_same() -> None:
    count = 0
    for seed in range(120):
        program = Program(seed)
        trunk = fused(program)
        count += steps(trunk).count(FUSED)
        for batch in (1, 3):
            inputs = inputs_of(batch, seed)
            error = relative_error(trunk(inputs), program(inputs))
            assert error < 1e-5, f"program {seed}: {program.steps}"
    assert count > 300


# The original network


@pytest.mark.parametrize("name", ["blocks", "sum of two convolutions with norms", "sum, then relu"])
def test_fusion_does_not_change_the_original_network(name: str) -> None:
    body = CASES[name].body
    before = {key: value.clone() for key, value in body.state_dict().items()}
    expected = body(inputs_of(2))
    for dtype in (FLOAT32, BFLOAT16):
        fused(body, dtype)(inputs_of(2))
    assert body.state_dict().keys() == before.keys()
    for key, value in body.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(body(inputs_of(2)), expected)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_a_fused_trunk_does_not_change_its_input(dtype: torch.dtype) -> None:
    for name in ("sum with the input, then relu", "then ReLU in place", "norm before"):
        inputs = inputs_of(2)
        fused(CASES[name].body, dtype)(inputs)
        assert torch.equal(inputs, inputs_of(2)), name


def test_unused_modules_are_deleted() -> None:
    trunk = fused(CASES["blocks"].body)
    assert [name.rstrip("0123456789") for name, _ in trunk.named_children()] == ["fused_"] * 5


# The float32 part before the bfloat16 part


def parts_of(body: FunctionModule) -> tuple[fx.GraphModule | None, fx.GraphModule]:
    return mixed_precision.split_before_bf16(fused(body))


def test_the_float32_part_is_split_off() -> None:
    body = FunctionModule(
        lambda b, x: F.relu(b.last(b.pool(F.relu(b.first(x))))),
        first=conv(), pool=nn.MaxPool2d(2), last=nn.Conv2d(4, 5, 4, padding=2),
    )  # fmt: skip
    first, rest = parts_of(body)
    assert first is not None
    assert steps(first) == [FUSED, "MaxPool2d"]
    assert steps(rest) == [FUSED]
    for batch in BATCHES:
        assert_close(rest(first(inputs_of(batch))), body(inputs_of(batch)), rtol=1e-4, atol=1e-5)


def test_a_trunk_that_is_safe_in_bfloat16_has_no_float32_part() -> None:
    first, rest = parts_of(FunctionModule(lambda b, x: F.relu(b.c(x)), c=conv(3, 4, 5)))
    assert first is None
    assert steps(rest) == [FUSED]


@pytest.mark.parametrize(
    "run",
    [
        # No safe convolution; an unsafe one after a safe one; two values between the parts.
        lambda b, x: F.relu(b.short(x)),
        lambda b, x: b.inner(F.relu(b.long(x))),
        lambda b, x: F.relu(b.wide(y := F.relu(b.short(x)))) + y + b.short(x),
    ],
)
def test_other_trunks_are_not_split(run: Callable[..., Any]) -> None:
    body = FunctionModule(
        run, short=conv(), long=conv(3, 4, 5, padding=2), inner=inner(),
        wide=nn.Conv2d(4, 4, 5, padding=2),
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"not all of the trunk's convolutions|more than one value"
    ):
        parts_of(body)


def transformer(run: Callable[..., Any]) -> FunctionModule:
    return FunctionModule(
        run, embed=nn.Conv2d(3, 8, 3, 3), inside=nn.Conv2d(8, 8, 1), norm=nn.LayerNorm(8),
        linear=nn.Linear(8, 8),
    )  # fmt: skip


@pytest.mark.parametrize(
    "run",
    [
        lambda b, x: b.linear(b.norm(b.embed(x).flatten(2).mT)),
        lambda b, x: b.linear(F.layer_norm(b.embed(x).flatten(2).mT, (8,))),
    ],
)
def test_a_transformer_is_safe_in_bfloat16_as_a_whole(run: Callable[..., Any]) -> None:
    body = transformer(run)
    first, rest = parts_of(body)
    assert first is None
    assert_close(rest(inputs_of(2)), body(inputs_of(2)))


@pytest.mark.parametrize(
    "run",
    [
        lambda b, x: b.linear(b.embed(x).flatten(2).mT),
        lambda b, x: b.norm(b.inside(b.embed(x)).flatten(2).mT),
    ],
)
def test_one_without_a_layer_norm_or_with_convolutions_inside_is_not(
    run: Callable[..., Any],
) -> None:
    with pytest.raises(ValueError, match="not all of the trunk's convolutions"):
        parts_of(transformer(run))
