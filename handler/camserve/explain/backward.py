"""The short backward pass: from each chosen score to its sample's activations, through the head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from camserve.explain.hooks import ForwardOutput


def score_gradients(
    output: ForwardOutput,
    samples: Sequence[int],
    score_weights: Tensor,
    layers: Sequence[Sequence[str]],
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """The gradient of each chosen score with respect to its sample's activations.

    One backward pass serves the whole batch: in eval mode samples do not mix, so the gradient of
    the sum of one score per sample contains each sample's own. The second score of a sample takes
    part in the second backward pass, and so on. Each pass goes back to the earliest layer that one
    of its scores needs, and no further.

    Args:
        output: a forward pass over N samples; the backward passes free its autograd graph.
        samples: the sample index of each chosen score, M of them.
        score_weights: (M, C), each score as a weighted sum of its sample's logits: a one-hot row is
            the logit of one class.
        layers: for each chosen score, the names of the layers whose gradients it needs.

    Yields:
        For each backward pass the indices of the scores in it, P of them, and by layer their
        gradients (P, K, h, w).
    """
    backward_passes: list[list[int]] = []
    scores_of_sample: Counter[int] = Counter()
    for index, sample in enumerate(samples):
        nth_score = scores_of_sample[sample]
        scores_of_sample[sample] += 1
        if nth_score == len(backward_passes):
            backward_passes.append([])
        backward_passes[nth_score].append(index)
    for n, indices in enumerate(backward_passes):
        names = list(dict.fromkeys(name for index in indices for name in layers[index]))
        rows = [samples[index] for index in indices]
        weights = select_rows(score_weights, indices)
        if rows != list(range(len(output.logits))):
            weights = torch.zeros_like(output.logits).index_copy(
                0, torch.tensor(rows, device=weights.device), weights
            )
        gradients = torch.autograd.grad(
            output.logits,
            [output.activations[name] for name in names],
            weights,
            retain_graph=n + 1 < len(backward_passes),
        )
        yield (
            indices,
            {
                name: select_rows(gradient, rows)
                for name, gradient in zip(names, gradients, strict=True)
            },
        )


def select_rows(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of a tensor, in that order; without a copy where they are all rows in order."""
    return values if list(rows) == list(range(len(values))) else values[rows]
