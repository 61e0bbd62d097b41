"""The state of a batch, handed from one stage of the pipeline to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from camserve.errors import RequestError
from camserve.explain import ForwardOutput, HookedNetwork
from camserve.networks import Network
from camserve.photo_preparation import PreparedPhoto
from camserve.protocols import IncomingRequest, Reply, ReplyFormat
from camserve.request_log import RequestRecord
from camserve.runtime import StageTimer


@dataclass(frozen=True)
class ParsedRequest:
    """A request's photos, and the format of its reply.

    Attributes:
        request: as it came.
        reply_format: of its protocol.
        photos: for each photo its index in the batch, or why it cannot be answered.
        error: why the request as a whole cannot be answered.
    """

    request: IncomingRequest
    reply_format: ReplyFormat
    photos: tuple[int | RequestError, ...] = ()
    error: RequestError | None = None


@dataclass(frozen=True)
class Batch:
    """Requests parsed and photos prepared.

    Attributes:
        requests: in the order they came; a reply where the answer needs no network.
        photos: of all requests, each decoded or failed.
        timer: seconds that the batch spends in each stage.
        records: one for each request, added once it is answered.
    """

    requests: tuple[ParsedRequest | Reply, ...]
    photos: tuple[PreparedPhoto | RequestError, ...]
    timer: StageTimer
    records: list[RequestRecord] = field(default_factory=list)


#: Some of a batch's photos, each with its index there.
IndexedPhotos = Sequence[tuple[int, PreparedPhoto]]


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass over some of a batch's photos.

    Attributes:
        path: the forward path that ran.
        photos: N of them.
        output: of the network for these N.
    """

    path: HookedNetwork
    photos: IndexedPhotos
    output: ForwardOutput


@dataclass(frozen=True)
class ScoredBatch:
    """A batch after its forward passes.

    Attributes:
        batch: the batch.
        passes: that succeeded.
        failed: by index, the photos whose forward pass failed.
    """

    batch: Batch
    passes: tuple[ForwardPass, ...]
    failed: Mapping[int, RequestError]


def network_inputs(network: Network, photos: Sequence[PreparedPhoto]) -> Tensor:
    """(N, channels, H, W): the normalised inputs of some photos, in the network's memory format."""
    inputs = network.normalise(np.stack([photo.network_input for photo in photos]))
    for row, photo in zip(inputs, photos, strict=True):
        if photo.normalized_input is not None:
            row.copy_(torch.from_numpy(photo.normalized_input))
    return inputs
