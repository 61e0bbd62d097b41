"""A heatmap -> the outputs of a reply: coloured, blended with the photo, encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, cast, get_args

import cv2
import numpy as np

from camserve.images import png
from camserve.images.color_profile import embed_profile
from camserve.images.geometry import Background, InputFrame, Pixels
from camserve.images.heatmap import Heatmap, Map
from camserve.images.regions import HotRegion, find_hot_regions
from camserve.options import Colormap, ImageFormat, Options, Output
from camserve.preprocess_settings import InputSize

#: The outputs that are pictures.
PICTURES: Final[frozenset[Output]] = frozenset({"heatmap", "overlay", "mask"})
_COLORED: Final[frozenset[Output]] = frozenset({"heatmap", "overlay"})
# Where no picture is asked for.
_EMPTY: Final[Pixels] = np.empty((0, 0), np.uint8)
# OpenCV's colormaps by name, (256, 1, 3) RGB. By its own constants, OpenCV would compute the table
# at each call, in BGR.
_COLORMAPS: Final[dict[str, Pixels]] = {
    name: np.ascontiguousarray(
        cv2.applyColorMap(
            np.arange(256, dtype=np.uint8)[:, None], getattr(cv2, f"COLORMAP_{name.upper()}")
        )[..., ::-1]
    )
    for name in get_args(Colormap)
}
# At these qualities a heatmap shows no compression artefacts.
_LOSSY: Final[dict[str, tuple[str, list[int]]]] = {
    "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 85]),
}


@dataclass(frozen=True)
class EncodedImage:
    """An encoded picture, ``width`` x ``height`` pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


#: What an output comes to: a picture, the map itself, or the boxes.
RenderedOutput = EncodedImage | Map | tuple[HotRegion, ...]


def render_outputs(
    heatmap: Heatmap,
    background: Background,
    frame: InputFrame,
    input_size: InputSize,
    options: Options,
) -> Iterator[Callable[[], RenderedOutput]]:
    """The outputs that a request asks for, in the order of its options.

    Iterating makes what several outputs share and blends overlays. The callables do the rest, and
    may be called in any thread.

    Args:
        heatmap: of the explanation.
        background: what the pictures are drawn on.
        frame: of the photo, in whose pixels boxes are.
        input_size: of the network's input.
        options: outputs, colours and encoding.
    """
    outputs, image_format, profile = options.outputs, options.image_format, background.profile
    mask = _EMPTY if PICTURES.isdisjoint(outputs) else heatmap.to_uint8(background.frame)
    colored = _EMPTY if _COLORED.isdisjoint(outputs) else apply_colormap(mask, options.colormap)
    for output in outputs:
        match output:
            case "heatmap":
                yield partial(encode, colored, image_format, profile=profile)
            case "overlay":
                blended = overlay(colored, background.pixels, options.alpha)
                yield partial(encode, blended, image_format, is_photo=True, profile=profile)
            case "mask":
                yield partial(encode, mask, image_format)
            case "map":
                yield lambda: heatmap.map
            case "boxes":
                yield partial(find_hot_regions, heatmap, frame, input_size, options.threshold)


def apply_colormap(mask: Pixels, colormap: Colormap) -> Pixels:
    """(h, w), 0 to 255 -> (h, w, 3) RGB."""
    return cast(Pixels, cv2.applyColorMap(mask, _COLORMAPS[colormap]))


def overlay(heatmap: Pixels, photo: Pixels, alpha: float) -> Pixels:
    """alpha * heatmap + (1 - alpha) * photo, all (h, w, 3) RGB."""
    return cast(Pixels, cv2.addWeighted(heatmap, alpha, photo, 1 - alpha, 0))


def encode(
    picture: Pixels, image_format: ImageFormat, *, is_photo: bool = False, profile: bytes = b""
) -> EncodedImage:
    """Encode (h, w, 3) RGB or (h, w) grey as a file.

    Args:
        picture: the pixels.
        image_format: ``auto`` is ``jpeg`` for a photo, which has four times the bytes without loss,
            and ``png`` for all else, so that its values can be read back exactly.
        is_photo: whether the picture shows a photo.
        profile: the ICC profile of its colours; empty for none.
    """
    height, width = picture.shape[:2]
    if image_format == "auto":
        image_format = "jpeg" if is_photo else "png"
    if image_format == "png":
        data = png.encode(picture, profile)
    elif profile:
        data = embed_profile(_encode_lossy(picture, image_format), profile)
    else:
        data = _encode_lossy(picture, image_format)
    return EncodedImage(data, f"image/{image_format}", width, height)


def _encode_lossy(picture: Pixels, image_format: ImageFormat) -> bytes:
    extension, parameters = _LOSSY[image_format]
    grey_or_bgr = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    succeeded, encoded = cv2.imencode(extension, grey_or_bgr, parameters)
    if not succeeded:
        raise RuntimeError(f"OpenCV could not write {image_format}")
    return encoded.tobytes()
