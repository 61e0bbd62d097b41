"""What is read of a photo's file, and what is not: its place, and who took it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from camserve.images import Box, InputFrame, decode_photo, read_header, resize_and_crop
from camserve.settings import Limits, Preprocess
from camserve_cli.report.photos.photo_file import pixel_figures, read_photo_file
from camserve_cli.report.photos.photo_frame import as_seen, frame_of, read_seen, relative_input_box

GPS, EXIF = 0x8825, 0x8769


def photo(path: Path, orientation: int = 1) -> Path:
    """A JPEG of 400 x 200, its left half red and its right half blue, with much EXIF."""
    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, :200, 0] = pixels[:, 200:, 2] = 255
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Acme", "Acme X100"
    exif[0x0112] = orientation
    exif[0x013B] = "SECRET artist"
    exif.get_ifd(GPS)[2] = (48.0, 51.0, 24.0)
    exif.get_ifd(EXIF).update({0x8827: 400, 0xA431: "SECRET serial", 0x829D: 2.8})
    Image.fromarray(pixels).save(path, exif=exif, quality=95, comment=b"SECRET comment")
    return path


def test_camera_and_exposure_are_read(tmp_path: Path) -> None:
    found = read_photo_file(photo(tmp_path / "a.jpg"))
    # The model names its maker.
    assert found.camera == "Acme X100"
    assert found.properties["iso"] == 400
    assert found.properties["f_number"] == pytest.approx(2.8)
    assert (found.properties["width"], found.properties["height"]) == (400, 200)
    assert found.properties["bytes"] == (tmp_path / "a.jpg").stat().st_size


def test_nothing_else_of_the_files_data_is_kept(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.jpg")
    assert b"SECRET" in path.read_bytes()
    found = read_photo_file(path)
    assert b"SECRET" not in found.thumbnail
    assert "SECRET" not in repr(found.properties) + found.camera
    with Image.open(BytesIO(found.thumbnail)) as thumbnail:
        assert thumbnail.format == "WEBP"
        assert thumbnail.size == (112, 56)
        assert dict(thumbnail.getexif()) == {}
        assert not {"exif", "icc_profile", "xmp"} & thumbnail.info.keys()


def test_the_text_of_a_png_is_not_kept(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SECRET")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png", pnginfo=text)
    assert b"SECRET" not in read_photo_file(tmp_path / "a.png").thumbnail


def test_a_thumbnail_is_upright(tmp_path: Path) -> None:
    found = read_photo_file(photo(tmp_path / "a.jpg", orientation=6))
    assert (found.properties["width"], found.properties["height"]) == (200, 400)
    with Image.open(BytesIO(found.thumbnail)) as thumbnail:
        assert thumbnail.size == (56, 112)
        red, blue = (thumbnail.convert("RGB").getpixel((28, y)) for y in (10, 100))
    assert red[0] > 200  # type: ignore[index]
    assert blue[2] > 200  # type: ignore[index]


def test_the_figures_of_pixels_by_hand() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 255
    figures = pixel_figures(pixels)
    assert figures["brightness"] == figures["red"] == figures["contrast"] == 0.5
    assert figures["saturation"] == 0
    assert figures["blur"] > 0
    plain = pixel_figures(np.full((4, 4, 3), (255, 0, 0), np.uint8))
    assert (plain["saturation"], plain["red"], plain["green"], plain["blur"]) == (1, 1, 0, 0)
    # The luma of red: 0.299 of it.
    assert plain["brightness"] == pytest.approx(0.299, abs=0.002)


def test_a_blurred_photo_has_less_of_the_laplacian() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    blurred = np.asarray(Image.fromarray(sharp).resize((8, 8)).resize((64, 64)))
    assert pixel_figures(blurred)["blur"] < pixel_figures(sharp)["blur"] / 10


@pytest.mark.parametrize("content", [b"no photo", b"", b"\xff\xd8\xff\xe0 broken"])
def test_a_file_that_is_no_photo_has_its_size_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    found = read_photo_file(tmp_path / "a.jpg")
    assert dict(found.properties) == {"bytes": len(content)}
    assert found.thumbnail == b""


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    assert dict(read_photo_file(tmp_path / "a.jpg").properties) == {}


# What the network saw


def test_the_input_in_shares_of_the_upright_photo() -> None:
    image = {"width": 400, "height": 200, "orientation": 6, "seen": [100, 0, 300, 200]}
    frame = frame_of(image, None)
    # Upright it is 200 wide and 400 high.
    assert relative_input_box(frame) == (0, 0.25, 1, 0.75)
    assert frame == InputFrame(400, 200, 6, Box(0, 100, 200, 300))
    padded = frame_of(image, Preprocess(fit="pad"))
    assert relative_input_box(padded) == (-0.5, 0, 1.5, 1)


def test_what_the_network_saw_is_read_upright(tmp_path: Path) -> None:
    seen = read_seen(photo(tmp_path / "a.jpg", orientation=6), (0.0, 0.25, 1.0, 0.75))
    assert seen.shape == (200, 200, 3)
    assert seen[10, 100, 0] > 200
    assert seen[190, 100, 2] > 200
    # What lies outside of the photo, as bars do, is left out.
    assert read_seen(tmp_path / "a.jpg", (-0.5, 0.0, 1.5, 1.0)).shape == (400, 200, 3)


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(resize=256, interpolation="bicubic"),
        Preprocess(resize=225, crop_rounding="down"),
        Preprocess(resize=(240, 300), crop=(200, 220)),
        Preprocess(resize=300, crop=(200, 220)),
        Preprocess(fit="stretch"),
        Preprocess(fit="pad"),
    ],
)
def test_the_network_sees_just_these_pixels(preprocess: Preprocess) -> None:
    height, width = preprocess.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    file = BytesIO()
    Image.fromarray(as_seen(pixels, preprocess, (0, 0))).save(file, "PNG")
    header = read_header(file.getvalue(), Limits(), 10**7)
    decoded = decode_photo(file.getvalue(), header)
    seen, _ = resize_and_crop(decoded, preprocess)
    assert np.array_equal(seen, pixels)


def test_a_margin_where_only_its_share_is_known() -> None:
    pixels = np.full((90, 90, 3), 7, np.uint8)
    pixels[0, 0] = 200
    around = as_seen(pixels, None, (0.05, 0.05))
    assert around.shape == (100, 100, 3)
    assert around[5, 5, 0] == around[0, 0, 0] == 200
    assert around[6, 6, 0] == 7


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    figures = read_photo_file(tmp_path / "deep.png").properties
    assert figures["brightness"] == pytest.approx(0.5, abs=0.01)
