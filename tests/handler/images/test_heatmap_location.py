"""A heatmap is hot where the photo's file shows the class, for any orientation, fit and size."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from PIL import Image

from camserve.images import Box, DecodedPhoto, Heatmap, HotRegion, InputFrame, Map, Pixels
from camserve.images.background import output_background, output_frame
from camserve.images.geometry import apply_orientation
from camserve.images.preprocess import resize_and_crop
from camserve.options import Options, Size
from camserve.pipeline import Pipeline
from camserve.protocols.parsing import IncomingRequest
from camserve.settings import Preprocess
from tests.support.color_resnet import COLOR_VALUES, photo
from tests.support.image_files import (
    FLOAT,
    RATIONAL,
    SHORT,
    decode_output,
    decode_with_opencv,
    max_difference,
    orientation_exif,
    orientation_tag,
    save_image,
    save_with_exif,
    tiff_directory,
    write_tiff,
)
from tests.support.images import drawn

# Without a network: the redness of a disc, at the resolution of a layer, is its map


@dataclass(frozen=True)
class Scene:
    """A red disc, a centre and a radius, that every fit has all of in the network's input.

    A blue disc lies far from it.
    """

    width: int
    height: int
    red: tuple[tuple[int, int], int]
    blue: tuple[tuple[int, int], int]

    @property
    def stored(self) -> Pixels:
        return photo(("red", *self.red), ("blue", *self.blue), width=self.width, height=self.height)


SCENES = {
    "landscape": Scene(451, 300, ((168, 200), 80), ((365, 60), 40)),
    "portrait": Scene(301, 452, ((105, 265), 80), ((250, 60), 40)),
    "square": Scene(333, 333, ((220, 130), 75), ((50, 280), 35)),
    "small": Scene(97, 83, ((40, 50), 22), ((80, 15), 10)),
    "wide": Scene(501, 241, ((215, 130), 78), ((440, 60), 40)),
    "narrow": Scene(61, 470, ((27, 225), 22), ((30, 420), 20)),
}


FITS = ("crop", "stretch", "pad")
GRID = 32


def redness(pixels: Pixels) -> Map:
    """(h, w, 3) RGB -> (h, w) in [0, 1]: 1 where it is red, 0 where it is grey or blue."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32), 2, 0)
    return cast(Map, np.clip((red - np.maximum(green, blue)) / 255, 0, 1))


@dataclass(frozen=True)
class RenderedPhoto:
    """What a reply has of a photo whose map is its redness."""

    frame: InputFrame
    mask: Pixels
    overlay: Pixels
    regions: tuple[HotRegion, ...]


def render_redness(stored: Pixels, orientation: int, fit: str, size: Size) -> RenderedPhoto:
    """Explain a photo by its redness, on a grid as coarse as a layer's."""
    preprocess = Preprocess(fit=fit)
    input_size = preprocess.input_size
    original = DecodedPhoto(apply_orientation(stored, orientation), orientation)
    crop, frame = resize_and_crop(original, preprocess)
    map = cast(Map, cv2.resize(redness(crop), (GRID, GRID), interpolation=cv2.INTER_AREA))
    shown = output_frame(frame, preprocess, size)
    outputs = drawn(
        Heatmap([map], input_size),
        output_background(original, crop, shown, size),
        frame,
        input_size,
        Options(outputs=("mask", "overlay", "boxes"), alpha=0, image_format="png"),
    )
    mask, overlay = (decode_output(output) for output in (outputs["mask"], outputs["overlay"]))
    regions = outputs["boxes"]
    assert isinstance(regions, tuple)
    assert mask.ndim == 2
    assert mask.shape == overlay.shape[:2] == (shown.height, shown.width)
    return RenderedPhoto(frame, mask, overlay, regions)


def intersection_over_union(a: Box, b: Box) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    intersection = max(width, 0) * max(height, 0)
    areas = [(box.x1 - box.x0) * (box.y1 - box.y0) for box in (a, b)]
    return intersection / (sum(areas) - intersection)


def outside_input(mask: Pixels, visible_box: Sequence[float], width: int, height: int) -> Pixels:
    """The values of a mask, of a file of ``width`` x ``height``, outside of the network's input."""
    x0, y0, x1, y1 = visible_box
    centres_x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1]
    centres_y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]
    # A reply rounds the box to thousandths.
    outside_x = (centres_x < x0 - 0.001) | (centres_x > x1 + 0.001)
    outside_y = (centres_y < y0 - 0.001) | (centres_y > y1 + 0.001)
    return cast(Pixels, mask[outside_y[:, None] | outside_x])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", SCENES)
def test_heatmap_covers_the_disc(name: str, fit: str, orientation: int) -> None:
    scene = SCENES[name]
    (x, y), radius = scene.red
    expected = Box(x - radius, y - radius, x + radius + 1, y + radius + 1)
    sizes: tuple[Size, ...] = ("original", 100, 701)
    for size in sizes:
        got = render_redness(scene.stored, orientation, fit, size)
        assert (got.frame.width, got.frame.height) == (scene.width, scene.height)
        scale = size / max(scene.width, scene.height) if isinstance(size, int) else 1.0
        assert got.mask.shape == (round(scene.height * scale), round(scene.width * scale))
        assert not outside_input(got.mask, got.frame.visible_box, scene.width, scene.height).any()
        # The grid blurs the rim.
        hot = cv2.resize(got.mask, (scene.width, scene.height)) > 127
        disc = redness(scene.stored) > 0.5
        assert (hot & disc).sum() / (hot | disc).sum() > 0.85
        (region, *others) = got.regions
        assert intersection_over_union(region.box, expected) > 0.8
        assert not others
        assert 0.5 < region.share <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", FITS)
def test_pictures_show_the_file_pixels(fit: str, orientation: int) -> None:
    stored = SCENES["landscape"].stored
    assert np.array_equal(render_redness(stored, orientation, fit, "original").overlay, stored)
    for size in (300, 701):
        resized = cv2.resize(stored, (size, round(size * 300 / 451)), interpolation=cv2.INTER_AREA)
        overlay = render_redness(stored, orientation, fit, size).overlay
        # With another interpolation only rims differ.
        assert np.abs(overlay.astype(int) - resized).mean() < 2


EXTREME_SIZES = [(1, 1), (1, 20), (20, 1), (3, 5), (400, 20), (20, 400), (225, 224)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [1, 2, 7, 2000, "original", "model"])
@pytest.mark.parametrize(("width", "height"), EXTREME_SIZES)
def test_extreme_photos_are_rendered_at_any_size(
    width: int, height: int, size: Size, fit: str
) -> None:
    stored = np.full((height, width, 3), COLOR_VALUES["red"], np.uint8)
    for orientation in (3, 6):
        got = render_redness(stored, orientation, fit, size)
        x0, y0, x1, y1 = got.frame.visible_box
        assert 0 <= x0 < x1 <= width + 1e-9
        assert 0 <= y0 < y1 <= height + 1e-9
        longest = {"model": 224, "original": max(width, height)}.get(str(size), size)
        assert max(got.mask.shape) == longest
        (region,) = got.regions
        # All of the input is hot; bilinear sampling blurs the edge of a bar.
        assert intersection_over_union(region.box, got.frame.visible_box) > 0.9
        assert region.share > 0.9


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [1, 2, 7, 2000, "original"])
@pytest.mark.parametrize(("width", "height"), EXTREME_SIZES)
def test_pictures_of_an_extreme_photo_show_it(
    width: int, height: int, size: Size, fit: str
) -> None:
    stored = np.full((height, width, 3), COLOR_VALUES["red"], np.uint8)
    for orientation in (3, 6):
        got = render_redness(stored, orientation, fit, size)
        assert not outside_input(got.mask, got.frame.visible_box, width, height).any()
        assert (got.overlay == COLOR_VALUES["red"]).all()


# From end to end, with the network whose answers are known by construction

#: Its map has 7 x 7 cells, and a cell has the value of its first pixel, not of its middle, so the
#: upright map is half a cell too far right and too low. The signs of that offset in file pixels:
OFFSET_SIGNS = {
    1: (1, 1), 2: (-1, 1), 3: (-1, -1), 4: (1, -1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def pipelines(color_pipeline: Pipeline) -> dict[str, Pipeline]:
    """The network with known answers, by the fit of its preprocessing."""

    def fitted(fit: str) -> Pipeline:
        # Of the network nothing depends on the fit.
        settings = color_pipeline.settings.model_copy(update={"preprocess": Preprocess(fit=fit)})
        loaded = replace(color_pipeline.loaded, settings=settings)
        return Pipeline(color_pipeline.model, loaded)

    return {fit: fitted(fit) for fit in FITS}


def replies_to(pipeline: Pipeline, *files: bytes, **options: str) -> Iterator[dict[str, Any]]:
    """Each photo's reply to a request that explains ``red``."""
    all_options = {"target": "red", "outputs": "mask,boxes", "size": "original", **options}
    fields = {name: value.encode() for name, value in all_options.items()}
    requests = [IncomingRequest({"data": data, **fields}, {}) for data in files]
    replies = pipeline.postprocess(pipeline.inference(pipeline.preprocess(requests)))
    for reply in replies:
        assert reply.status == 200, reply.body
        yield json.loads(reply.body)


def picture_pixels(image: dict[str, Any]) -> Pixels:
    """A reply's picture: grey where its file is, else RGB."""
    pixels = decode_with_opencv(base64.b64decode(image["b64"], validate=True))
    assert pixels.shape[:2] == (image["height"], image["width"])
    return pixels


def assert_red_disc_is_located(
    reply: dict[str, Any], scene: Scene, orientation: int, fit: str, longest: int | None = None
) -> None:
    """The heatmap is hot on the red disc, in file pixels, and zero outside of the input."""
    photo = reply["image"]
    assert (photo["width"], photo["height"]) == (scene.width, scene.height)
    assert photo["orientation"] == orientation
    x0, y0, x1, y1 = photo["seen"]
    (explanation,) = reply["explanations"]
    (x, y), _ = scene.red
    left, top, right, bottom = explanation["boxes"][0]["box"]
    assert left < x < right
    assert top < y < bottom
    # The box is centred on the disc.
    longer = max(scene.width, scene.height)
    cells = (longer / 7,) * 2 if fit == "pad" else ((x1 - x0) / 7, (y1 - y0) / 7)
    middles = (left + right) / 2, (top + bottom) / 2
    for middle, centre, cell, sign in zip(
        middles, (x, y), cells, OFFSET_SIGNS[orientation], strict=True
    ):
        assert abs(middle - centre - sign * cell / 2) < 0.6 * cell

    mask = picture_pixels(explanation["mask"])
    scale = longest / longer if longest else 1
    assert mask.shape == (round(scene.height * scale), round(scene.width * scale))
    hot, cold = (
        int(mask[int(v * scale), int(u * scale)]) for u, v in (scene.red[0], scene.blue[0])
    )
    assert hot > 170
    assert cold < 85
    assert not outside_input(mask, photo["seen"], scene.width, scene.height).any()


def scene_files(scene: Scene, *orientations: int) -> list[bytes]:
    return [
        save_with_exif(scene.stored, "PNG", tiff_directory(orientation_tag(SHORT, orientation)))
        for orientation in orientations
    ]


@pytest.mark.parametrize(
    ("fit", "name", "orientations"),
    [
        ("crop", "landscape", range(1, 9)),
        ("crop", "portrait", (3, 8)),
        ("crop", "square", (6,)),
        ("crop", "small", (4,)),
        ("crop", "wide", (7,)),
        ("stretch", "landscape", (5,)),
        ("stretch", "portrait", (1, 2)),
        ("stretch", "wide", (8,)),
        ("pad", "landscape", (1, 7)),
        ("pad", "portrait", (6,)),
        ("pad", "wide", (3,)),
    ],
)
def test_disc_is_located_for_every_shape_fit_and_orientation(
    pipelines: dict[str, Pipeline], fit: str, name: str, orientations: Sequence[int]
) -> None:
    replies = replies_to(pipelines[fit], *scene_files(SCENES[name], *orientations))
    for orientation, reply in zip(orientations, replies, strict=True):
        assert_red_disc_is_located(reply, SCENES[name], orientation, fit)


@pytest.mark.parametrize(
    ("fit", "orientation", "size"), [("crop", 6, 120), ("stretch", 4, 900), ("pad", 8, 333)]
)
def test_disc_is_located_at_any_size(
    pipelines: dict[str, Pipeline], fit: str, orientation: int, size: int
) -> None:
    scene = SCENES["portrait"]
    (reply,) = replies_to(pipelines[fit], *scene_files(scene, orientation), size=str(size))
    assert_red_disc_is_located(reply, scene, orientation, fit, longest=size)


def save_oriented(stored: Pixels, format: str, orientation: int, **options: Any) -> bytes:
    exif = orientation_exif(orientation)
    return save_image(Image.fromarray(stored), format, exif=exif, **options)


def save_tiff_in_strips(stored: Pixels, orientation: int) -> bytes:
    return save_oriented(stored, "TIFF", orientation, compression="tiff_lzw", strip_size=8192)


#: How each kind of file is written.
FILE_KINDS: dict[str, Callable[[Pixels, int], bytes]] = {
    "jpeg": lambda stored, orientation: save_oriented(stored, "JPEG", orientation, quality=95),
    "png": lambda stored, orientation: save_oriented(stored, "PNG", orientation),
    "webp": lambda stored, orientation: save_oriented(stored, "WEBP", orientation, lossless=True),
    "tiff": lambda stored, orientation: save_oriented(stored, "TIFF", orientation),
    "tiff in strips": save_tiff_in_strips,
    "tiff in tiles": lambda stored, orientation: write_tiff(
        stored, orientation_tag(SHORT, orientation), tile=(64, 64)
    ),
    "tiff of 16 bits": lambda stored, orientation: write_tiff(
        stored.astype(np.uint16) * 257, orientation_tag(SHORT, orientation), rows=16
    ),
}


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_disc_is_located_in_every_kind_of_file_and_pictures_show_its_pixels(
    color_pipeline: Pipeline, kind: str
) -> None:
    scene = SCENES["landscape"]
    orientations = range(1, 9) if kind == "jpeg" else (2, 6, 7)
    files = [FILE_KINDS[kind](scene.stored, orientation) for orientation in orientations]
    options = {"outputs": "mask,heatmap,overlay,boxes", "image_format": "png"}
    replies = replies_to(color_pipeline, *files, **options)
    for orientation, reply, data in zip(orientations, replies, files, strict=True):
        assert_red_disc_is_located(reply, scene, orientation, "crop")
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        stored = decode_with_opencv(data, flags) if kind == "jpeg" else scene.stored
        (explanation,) = reply["explanations"]
        heatmap = picture_pixels(explanation["heatmap"])
        jet = cv2.applyColorMap(picture_pixels(explanation["mask"]), cv2.COLORMAP_JET)
        assert np.array_equal(heatmap, jet[..., ::-1])
        blend = cv2.addWeighted(np.ascontiguousarray(heatmap), 0.3, stored, 0.7, 0)
        tolerance = 1 if kind == "tiff of 16 bits" else 0
        assert max_difference(picture_pixels(explanation["overlay"]), blend) <= tolerance


def test_strips_are_several() -> None:
    stored = SCENES["landscape"].stored
    for data in (write_tiff(stored, rows=16), save_tiff_in_strips(stored, 1)):
        tags: dict[int, Any] = getattr(Image.open(io.BytesIO(data)), "tag_v2", {})
        assert len(tags[273]) > 10


@pytest.mark.parametrize("orientation", [2, 7])
def test_at_the_models_size_a_reply_is_upright(color_pipeline: Pipeline, orientation: int) -> None:
    stored = SCENES["landscape"].stored
    files = [
        save_with_exif(stored, "PNG", tiff_directory(orientation_tag(SHORT, orientation))),
        save_with_exif(apply_orientation(stored, orientation), "PNG"),
    ]
    got, expected = replies_to(color_pipeline, *files, size="model", outputs="mask,heatmap,overlay")
    for output in ("mask", "heatmap", "overlay"):
        pictures = [picture_pixels(reply["explanations"][0][output]) for reply in (got, expected)]
        assert pictures[0].shape[:2] == (224, 224)
        assert max_difference(*pictures) <= 1


@pytest.mark.parametrize(
    ("fit", "heat"), [("crop", range(1)), ("stretch", range(61, 256)), ("pad", range(61, 256))]
)
def test_heatmap_is_zero_where_the_photo_is_cropped(
    pipelines: dict[str, Pipeline], fit: str, heat: range
) -> None:
    # The disc is near the edge of a wide photo.
    scene = Scene(701, 201, ((75, 100), 74), ((350, 100), 50))
    for reply in replies_to(pipelines[fit], *scene_files(scene, 3, 6)):
        mask = picture_pixels(reply["explanations"][0]["mask"])
        assert int(mask[100, 75]) in heat
        assert not outside_input(mask, reply["image"]["seen"], 701, 201).any()


def test_invalid_exif_does_not_affect_other_photos_of_the_batch(color_pipeline: Pipeline) -> None:
    blocks = [
        tiff_directory(orientation_tag(SHORT, 6)),
        tiff_directory(orientation_tag(RATIONAL, 6, 1, letter="I")),
        tiff_directory(orientation_tag(FLOAT, 6, letter="f")),
        b"no TIFF header at all",
    ]
    files = [save_with_exif(SCENES["small"].stored, "JPEG", block) for block in blocks]
    good, *others = replies_to(color_pipeline, *files, outputs="boxes")
    assert good["image"]["orientation"] == 6
    assert all(type(reply["image"]["orientation"]) is int for reply in others)
