"""One photo on its way to the network: first what it asks for, then its pixels.

Planning reads no more than the photo's header, in the order of the photos, since those of a request
share its limits. Making ready decodes, and may be done for many photos side by side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve.errors import RequestError, short_repr
from camserve.explain import (
    ExplanationRequest,
    forward_count,
    parse_condition,
    resolve_targets,
)
from camserve.images import (
    PICTURES,
    Background,
    DecodedPhoto,
    ImageHeader,
    InputFrame,
    Pixels,
    decode_photo,
    decode_pixel_tensor,
    downscale_factor,
    input_frame,
    normalized_input,
    output_background,
    output_frame,
    pixel_tensor_size,
    pixels_of_input,
    read_header,
    resize_and_crop,
    to_channels,
    upright_size,
)
from camserve.networks import Labels
from camserve.options import Options, Size
from camserve.protocols import EncodedPhoto, ImageRequest, PhotoTensor
from camserve.request_budget import RequestBudget
from camserve.settings import Settings


@dataclass(frozen=True)
class PhotoFile:
    """A photo's file, and its header."""

    data: EncodedPhoto
    header: ImageHeader


@dataclass(frozen=True)
class DecodePlan:
    """A photo that can be answered, not decoded yet.

    Attributes:
        photo: the file with its header, or the tensor.
        frame: where the network's input lies in the photo.
        size: of the reply's pictures; ``model`` where there are none.
        options: of the request.
        explanation_request: what is to be explained.
        budget: of the request.
    """

    photo: PhotoFile | PhotoTensor
    frame: InputFrame
    size: Size
    options: Options
    explanation_request: ExplanationRequest
    budget: RequestBudget


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo that is ready for the network.

    Attributes:
        network_input: (H, W, channels) RGB or grey, 0 to 255, before normalisation.
        frame: where the network's input lies in the photo.
        background: what the reply's pictures are drawn on.
        options: of the request.
        explanation_request: what is to be explained.
        budget: of the request.
        file_bytes: the size of its file, or of its tensor.
        warnings: what the file's decoder reported.
        profile: the name of its colour profile; empty for none.
        normalized_input: (channels, H, W), which the network receives in place of
            ``network_input``, where the caller has sent the network's own input.
        sha256: of its file, or of its tensor's bytes, in hexadecimal; empty where no option needs
            it.
    """

    network_input: Pixels
    frame: InputFrame
    background: Background
    options: Options
    explanation_request: ExplanationRequest
    budget: RequestBudget
    file_bytes: int
    warnings: tuple[str, ...]
    profile: str
    normalized_input: NDArray[np.float32] | None = None
    sha256: str = ""

    def reserve_explanations(self, explanations: int) -> None:
        """Reserve what more explanations take than the request names targets.

        Raises:
            RequestError: ``reply_too_large``, ``too_many_forwards``.
        """
        frame = self.background.frame
        pixels = len(PICTURES & set(self.options.outputs)) * frame.width * frame.height
        targets = len(self.explanation_request.targets)
        self.budget.reserve_drawn(explanations * pixels, reserved=targets * pixels)
        metrics = self.options.faithfulness
        forwards = forward_count(metrics, explanations)
        self.budget.reserve_forwards(forwards, reserved=forward_count(metrics, targets))


def plan_photo(
    request: ImageRequest, settings: Settings, labels: Labels, budget: RequestBudget
) -> DecodePlan:
    """Check the options against the model, and the photo's header against the limits.

    Args:
        request: one photo and its options.
        settings: of the operator.
        labels: of the model.
        budget: of the request that the photo belongs to.

    Raises:
        RequestError: the photo cannot be answered.
    """
    options, limits, preprocess = request.options, settings.limits, settings.preprocess
    targets = resolve_targets(labels, options.target, limits.targets)
    if options.top_k > len(labels):
        raise RequestError(
            "invalid_option",
            f"option 'top_k': {short_repr(options.top_k)} is not accepted; accepted: 1 to "
            f"{len(labels)}",
        )
    if not options.explain:
        targets = ()
    photo, frame = _read(request.image, settings, budget.pixels)
    pictures = len(targets) * len(PICTURES & set(options.outputs))
    # Where no picture is drawn, nothing of the photo need be kept.
    size = options.size if pictures else "model"
    drawn = output_frame(frame, preprocess, size)
    budget.reserve(frame, pictures * drawn.width * drawn.height)
    budget.reserve_forwards(forward_count(options.faithfulness, len(targets)))
    condition = parse_condition(options.explain_when, labels) if options.explain_when else None
    explanation_request = ExplanationRequest(
        targets, options.layer or (), options.method, condition if targets else None
    )
    return DecodePlan(photo, frame, size, options, explanation_request, budget)


def prepare_photo(plan: DecodePlan, settings: Settings) -> PreparedPhoto:
    """Decode a photo, no larger than needed, and cut out the network's input.

    Raises:
        RequestError: ``invalid_image``.
    """
    preprocess, photo = settings.preprocess, plan.photo
    normalized, profile = None, None
    if isinstance(photo, PhotoFile):
        decoded = _decode(photo, plan.size, settings)
        profile = photo.header.profile
    elif photo.kind == "normalized":
        normalized = normalized_input(photo.data, photo.shape, preprocess)
        decoded = DecodedPhoto(pixels_of_input(normalized, preprocess), orientation=1)
    else:
        decoded = decode_pixel_tensor(photo.data, photo.datatype, photo.shape)
    crop = decoded.upright
    if normalized is None:
        crop, _ = resize_and_crop(decoded, preprocess)
    drawn = output_frame(plan.frame, preprocess, plan.size)
    return PreparedPhoto(
        to_channels(crop, preprocess.channels),
        plan.frame,
        output_background(decoded, crop, drawn, plan.size),
        plan.options,
        plan.explanation_request,
        plan.budget,
        len(photo.data),
        decoded.warnings,
        profile.name if profile else "",
        normalized,
        sha256=_digest(photo) if plan.options.faithfulness or plan.options.record else "",
    )


def _digest(photo: PhotoFile | PhotoTensor) -> str:
    return hashlib.sha256(photo.data).hexdigest()


def _read(
    image: EncodedPhoto | PhotoTensor, settings: Settings, max_pixels: int
) -> tuple[PhotoFile | PhotoTensor, InputFrame]:
    """A photo that keeps the limits, and where the network's input lies in it.

    Raises:
        RequestError: the photo is larger than the limits, or of no kind that is accepted.
    """
    limits, preprocess = settings.limits, settings.preprocess
    if not isinstance(image, PhotoTensor):
        header = read_header(image, limits, max_pixels, settings.formats)
        width, height = upright_size(header.width, header.height, header.orientation)
        frame = input_frame(width, height, header.orientation, preprocess)
        return PhotoFile(image, header), frame
    if image.kind == "normalized":
        return image, InputFrame.full(preprocess.input_size.width, preprocess.input_size.height)
    width, height = pixel_tensor_size(image.shape, limits, max_pixels)
    return image, input_frame(width, height, 1, preprocess)


def _decode(file: PhotoFile, size: Size, settings: Settings) -> DecodedPhoto:
    """The pixels of a file, no more of them than needed.

    Raises:
        RequestError: ``invalid_image``.
    """
    return decode_photo(
        file.data,
        file.header,
        downscale_factor(file.header, settings.preprocess, size),
        damaged=settings.damaged,
        icc=settings.preprocess.icc,
    )
