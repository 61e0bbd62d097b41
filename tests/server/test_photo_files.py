"""Files as phones, scanners and cameras write them, through a real server."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from tests.support import color_resnet
from tests.support.color_resnet import photo, png
from tests.support.fault_server import FaultServer, serving
from tests.support.icc_profiles import rgb_profile
from tests.support.image_files import save_image
from tests.support.scripts import camserve

pillow_heif.register_heif_opener()

#: Reads every format and converts colours; and as packaged, but strict with damage.
OPEN, STRICT = "colours-open", "colours-strict"
RED = Image.fromarray(photo(("red", (160, 120), 60)))
PROFILE = rgb_profile()
JPEG = save_image(RED.resize((1600, 1200)), "JPEG", quality=95)
HOLE = JPEG[: len(JPEG) // 2] + bytes(400) + JPEG[len(JPEG) // 2 + 400 :]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    folder = tmp_path_factory.mktemp("files")
    inputs = color_resnet.package_inputs(folder, **color_resnet.NARROW)
    settings = {
        OPEN: (
            "handler.formats=[jpeg, png, webp, gif, bmp, tiff, heic, avif]",
            "handler.preprocess.icc=srgb",
        ),
        STRICT: ("handler.damaged=refuse",),
    }
    for name, values in settings.items():
        camserve(
            "package", "--name", name, "--store", folder / "store", *inputs,
            "--set", "handler.compile=off",
            *(part for value in values for part in ("--set", value)),
        )  # fmt: skip
    archives: dict[str, Path] = {name: folder / "store" / f"{name}.mar" for name in settings}
    with serving(folder, archives, workers="1") as running:
        yield running


def post(server: FaultServer, model: str, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{server.inference}/predictions/{model}", headers=server.bearer(), timeout=60, **body
    )


def ways(data: bytes) -> dict[str, dict[str, Any]]:
    encoded = base64.b64encode(data).decode()
    return {
        "raw": {"content": data},
        "form": {"files": {"data": data}},
        "json": {"json": {"image": {"b64": encoded}}},
    }


@pytest.mark.parametrize("way", ["raw", "form", "json"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(save_image(RED, "HEIF", quality=95), id="heic"),
        pytest.param(save_image(RED, "AVIF", quality=95), id="avif"),
        pytest.param(save_image(RED, "TIFF", compression="zstd"), id="tiff-zstd"),
        pytest.param(save_image(RED.convert("CMYK"), "TIFF"), id="tiff-cmyk"),
        pytest.param(save_image(RED, "BMP"), id="bmp"),
        pytest.param(png(np.asarray(RED))[:-12], id="png-without-an-end"),
    ],
)
def test_files_are_read(server: FaultServer, data: bytes, way: str) -> None:
    reply = post(server, OPEN, **ways(data)[way])
    assert reply.status_code == 200, reply.text
    assert reply.json()["predictions"][0]["label"] == "red"


@pytest.mark.parametrize("format", ["HEIF", "AVIF"])
def test_others_do_not_read_them(server: FaultServer, format: str) -> None:
    reply = post(server, STRICT, content=save_image(RED, format))
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_format")
    assert "which the server's operator has not enabled" in reply.json()["error"]["message"]


def test_damage_is_told_or_refused(server: FaultServer) -> None:
    told = post(server, OPEN, content=HOLE).json()
    assert told["image"]["warnings"] == ["damaged"]
    refused = post(server, STRICT, content=HOLE)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_image")
    for model in (OPEN, STRICT):
        lacks_only_its_end = post(server, model, content=JPEG[:-2]).json()
        assert lacks_only_its_end["image"]["warnings"] == ["damaged", "no_end_marker"]


def test_colours_are_converted_or_carried(server: FaultServer) -> None:
    # The profile exchanges red and green.
    data = save_image(RED, "PNG", icc_profile=PROFILE)
    options = {"data": {"size": "original", "outputs": "overlay", "image_format": "png"}}
    converted, ignored = (
        post(server, model, files={"data": data}, **options).json() for model in (OPEN, STRICT)
    )
    assert [one["predictions"][0]["label"] for one in (converted, ignored)] == ["green", "red"]
    assert {one["image"]["profile"] for one in (converted, ignored)} == {"Swapped"}
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(one["explanations"][0]["overlay"]["b64"])))
        for one in (converted, ignored)
    ]
    assert [picture.info.get("icc_profile") for picture in pictures] == [None, PROFILE]


def test_the_description_lists_what_is_read(server: FaultServer) -> None:
    for model, formats in ((OPEN, ["HEIC", "AVIF"]), (STRICT, [])):
        found = httpx.get(
            f"{server.management}/models/{model}?customized=true",
            headers=server.bearer("management"),
            timeout=60,
        ).json()
        described = found[0]["customizedMetadata"]["formats"]
        assert described == ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *formats]
