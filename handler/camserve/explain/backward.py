"""The short backward: from each chosen score to its sample's activations, through the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from camserve.explain.hooks import ForwardOutput


def score_gradients(
    scores: ForwardOutput,
    samples: Sequence[int],
    weights: Tensor,
    layers: Sequence[Sequence[str]],
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """The gradient of each chosen score with respect to its sample's activations.

    One backward serves the whole batch: in eval mode samples do not mix, so the gradient of the
    sum of one score per sample holds every sample's own. A sample with several scores has its
    second in the second backward, and so on. Each goes back to the earliest layer that one of its
    scores wants, and no further.

    Args:
        scores: a forward pass over N samples; its tape is used up.
        samples: the sample of each chosen score, M of them.
        weights: (M, C), by which its sample's logits add up to it: 1 for that of one class.
        layers: those whose gradients each chosen score wants.

    Yields:
        For each backward the places of the scores that it served, P of them, and by layer their
        gradients (P, K, h, w).
    """
    rounds: list[list[int]] = []
    turns: dict[int, int] = {}
    for place, sample in enumerate(samples):
        turn = turns.get(sample, 0)
        turns[sample] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    for n, places in enumerate(rounds):
        names = list(dict.fromkeys(name for place in places for name in layers[place]))
        rows = [samples[place] for place in places]
        of_places = select_rows(weights, places)
        if rows != list(range(len(scores.logits))):
            of_places = torch.zeros_like(scores.logits).index_copy(
                0, torch.tensor(rows, device=weights.device), of_places
            )
        found = torch.autograd.grad(
            scores.logits,
            [scores.activations[name] for name in names],
            of_places,
            retain_graph=n + 1 < len(rounds),
        )
        by_layer = zip(names, found, strict=True)
        yield places, {name: select_rows(gradient, rows) for name, gradient in by_layer}


def select_rows(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of a tensor, in that order; not a copy but the tensor where they are all of it."""
    return values if list(rows) == list(range(len(values))) else values[rows]
