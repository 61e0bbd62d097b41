"""Heads that classify by single tokens compute these alone, and the same scores and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.testing import assert_close

from camserve.networks.few_query_attention import FewQueryAttention
from camserve.networks.token_selection import select_tokens_early

TOKENS, WIDTH = 9, 12


class Block(nn.Module):
    """A vision transformer's last block and its classifier."""

    def __init__(self, bias: bool = True, **attention: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(WIDTH, 3, bias=bias, batch_first=True, **attention)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, WIDTH))
        self.norm, self.classes = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def attend(self, tokens: Tensor) -> Tensor:
        attended: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return attended

    def blocks(self, tokens: Tensor, around: Tensor) -> Tensor:
        tokens = self.attend(tokens) + around
        normalised: Tensor = self.norm(tokens + self.mlp(tokens))
        return normalised

    def forward(self, tokens: Tensor, around: Tensor) -> Any:
        return self.classes(self.blocks(tokens, around)[:, 0])


class TwoTokens(Block):
    def forward(self, tokens: Tensor, around: Tensor) -> Any:
        blocks = self.blocks(tokens, around)
        return self.classes(blocks[:, 0]) + self.classes(blocks[:, 2, :])


class Masked(Block):
    def attend(self, tokens: Tensor) -> Tensor:
        mask = torch.ones(TOKENS, TOKENS).triu(1).bool()
        attended: Tensor = self.attention(tokens, tokens, tokens, attn_mask=mask)[0]
        return attended


class Crossed(Block):
    def attend(self, tokens: Tensor) -> Tensor:
        attended: Tensor = self.attention(tokens, tokens, tokens * 2, need_weights=False)[0]
        return attended


class Pooled(Block):
    """All tokens are used."""

    def forward(self, tokens: Tensor, around: Tensor) -> Any:
        return self.classes(self.blocks(tokens, around).mean(1))


KINDS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "class token": (Block, True),
    "without biases": (lambda: Block(bias=False), True),
    "two tokens": (TwoTokens, True),
    "a learned key": (lambda: Block(add_bias_kv=True), False),
    "a token of zeros": (lambda: Block(add_zero_attn=True), False),
    "a mask": (Masked, False),
    "values that are no keys": (Crossed, False),
    "pooled": (Pooled, False),
}


@pytest.fixture(params=KINDS)
def head(request: pytest.FixtureRequest) -> tuple[nn.Module, fx.GraphModule, bool]:
    """A head, the same with its tokens selected early, and whether its attention is of few."""
    build, few = KINDS[request.param]
    original = build().eval()
    changed = fx.symbolic_trace(original)
    select_tokens_early(changed, inputs_of(2))
    return original, changed, few


def inputs_of(samples: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(samples)
    return [torch.randn(samples, TOKENS, WIDTH, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("samples", [1, 3])
def test_scores_and_gradients_stay_the_same(
    head: tuple[nn.Module, fx.GraphModule, bool], samples: int
) -> None:
    original, changed, _ = head
    inputs = [tensor.requires_grad_() for tensor in inputs_of(samples)]
    expected, scores = original(*inputs), changed(*inputs)
    assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(of[:, 1].sum(), inputs) for of in (scores, expected)]
    assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_keys_and_values_are_computed_only_where_they_are_needed(
    head: tuple[nn.Module, fx.GraphModule, bool],
) -> None:
    _, changed, few = head
    called = [changed.get_submodule(str(node.target)) for node in changed.graph.nodes
              if node.op == "call_module"]  # fmt: skip
    assert any(isinstance(module, FewQueryAttention) for module in called) is few
    assert any(isinstance(module, nn.MultiheadAttention) for module in called) is not few


def test_the_mlp_gets_the_selected_token_alone() -> None:
    changed = fx.symbolic_trace(Block().eval())
    select_tokens_early(changed, inputs_of(1))
    seen: list[torch.Size] = []
    first = changed.get_submodule("mlp.0")
    first.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    changed(*inputs_of(2))
    assert seen == [(2, 1, WIDTH)]


def test_many_queries_are_not_few() -> None:
    attention = nn.MultiheadAttention(WIDTH, 3, batch_first=True)
    assert FewQueryAttention.fits(attention, 3)
    assert not FewQueryAttention.fits(attention, 4)
