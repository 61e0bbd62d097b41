"""Attention of a few tokens to many, without the keys and the values of the many."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class FewQueryAttention(nn.Module):
    """Computes what an ``nn.MultiheadAttention`` does where keys and values are the same tokens.

    A head's products of queries and keys are q (x W_k)^T = (q W_k) x^T, and its output is
    a (x W_v) = (a x) W_v, where x are the tokens and a the weights of attention. So the weights of
    keys and values multiply what there is one of for each query, not for each token: for a class
    token among 197, a hundredth of the work, forward and backward. The bias of the keys adds the
    same to all products of a query, which the softmax ignores.

    Args:
        attention: in eval mode, with weights that ``fits`` says are of the usual form. Its
            parameters are shared.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self._heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    @staticmethod
    def fits(attention: nn.MultiheadAttention, queries: int) -> bool:
        """Whether attention is of the usual form, and so many queries are few."""
        return (
            type(attention) is nn.MultiheadAttention
            and attention.batch_first
            and attention._qkv_same_embed_dim
            and attention.bias_k is None
            and not attention.add_zero_attn
            and queries < attention.head_dim
        )

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(N, Q, E) and (N, T, E) -> (N, Q, E)."""
        samples, count, width = queries.shape
        of_queries, of_keys, of_values = self.in_proj_weight.view(3, self._heads, -1, width)
        heads = torch.einsum("nqe,hde->nhqd", queries, of_queries)
        if self.in_proj_bias is not None:
            query_bias, _, value_bias = self.in_proj_bias.view(3, self._heads, 1, -1)
            heads = heads + query_bias
        directions = torch.einsum("nhqd,hde->nhqe", heads, of_keys).flatten(1, 2)
        products = directions @ tokens.mT / heads.shape[3] ** 0.5
        means = (products.softmax(dim=2) @ tokens).view(samples, self._heads, count, width)
        outputs = torch.einsum("nhqe,hde->nhqd", means, of_values)
        if self.in_proj_bias is not None:
            outputs = outputs + value_bias
        outputs = outputs.transpose(1, 2).flatten(2)
        return F.linear(outputs, self.out_proj.weight, self.out_proj.bias)
