"""What the tests of both clients send: photos, options, and requests that are refused."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tests.support import color_resnet
from tests.support.color_resnet import COLOR_VALUES
from tests.support.kserve_clients.calls import options, pack, photos

TWO_DISCS = color_resnet.photo(("red", (100, 120), 60), ("blue", (240, 120), 40))
PHOTO = color_resnet.png(TWO_DISCS)
RED, GREEN, BLUE = (
    color_resnet.png(color_resnet.photo((colour, (160, 120), 60)))
    for colour in ("red", "green", "blue")
)
#: Options of :data:`PHOTO`, as every transport can carry them.
OPTIONS = {
    "target": "blue",
    "outputs": "heatmap,overlay,mask,map,boxes",
    "top_k": 3,
    "alpha": 0.5,
    "threshold": 0.4,
}


def labels(outcomes: Sequence[dict[str, Any]]) -> list[str]:
    """The best class of each answer, the code of each error."""
    return [
        one["error"]["code"] if "error" in one else one["predictions"][0]["label"]
        for one in outcomes
    ]


def numbered_photo(number: int) -> bytes:
    """A photo that no other number has: its colour, and its width of 300 and the number."""
    colour = list(COLOR_VALUES)[number % len(COLOR_VALUES)]
    return color_resnet.png(color_resnet.photo((colour, (160, 120), 60), width=300 + number))


def large_jpeg() -> bytes:
    """A photo of 12 megapixels, with noise, which a PNG cannot make small."""
    photo = color_resnet.photo(("red", (2000, 1500), 900), width=4000, height=3000)
    noise = np.random.default_rng(7).integers(0, 12, photo.shape, np.uint8)
    noisy = np.clip(photo.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(noisy).save(written, "JPEG", quality=95)
    return written.getvalue()


@dataclass(frozen=True)
class Refused:
    """A request that is refused.

    Attributes:
        inputs: of the request.
        http, grpc: the status.
        message: a part of what the error says.
        more: arguments of the request, with Triton's names.
    """

    inputs: Sequence[dict[str, Any]]
    http: str
    grpc: str
    message: str
    more: dict[str, Any] = field(default_factory=dict)


def _bad(message: str, *inputs: dict[str, Any], **more: Any) -> Refused:
    return Refused(inputs, "400", "INVALID_ARGUMENT", message, more)


REFUSALS = {
    "an unknown option": _bad("did you mean 'alpha'?", photos(RED), *options(alhpa=1)),
    "an unknown parameter": _bad("alhpa", photos(RED), parameters={"alhpa": 1}),
    "a wrong value": _bad("alpha", photos(RED), *options(alpha=9)),
    "an unknown class": _bad("pink", photos(RED), *options(target="pink")),
    "two values of an option": _bad("top_k", photos(RED), *options(top_k=1), *options(top_k=2)),
    "no photo": _bad("carries no photo", *options(target="red")),
    "an empty photo": _bad("the photo is empty", photos(b"")),
    "not a photo": Refused(
        [photos(b"junk")], "415", "INVALID_ARGUMENT", "format is not recognised; accepted: JPEG"
    ),
    "too many photos": Refused(
        [photos(*[RED] * 33)], "413", "INVALID_ARGUMENT", "33 photos; accepted: up to 32"
    ),
    "a shape that is not the data's": _bad(
        "must agree", {**photos(RED), "claimed": {"shape": [2]}}
    ),
    "pixels of a wrong shape": _bad("(9, 9", pack("image", np.zeros((1, 9, 9, 5), np.uint8))),
    "floats of no kind": _bad("input_kind", pack("image", np.zeros((1, 9, 9, 3), np.float32))),
    "an unknown output": _bad("output tensor", photos(RED), outputs=[{"name": "heat"}]),
    "classes of what has none": _bad(
        "probability and score", photos(RED), outputs=[{"name": "label", "class_count": 1}]
    ),
    "an unknown model": Refused(
        [photos(RED)], "404", "NOT_FOUND", "no model 'nope' is served", {"model_name": "nope"}
    ),
    "an unknown version": Refused(
        [photos(RED)], "404", "NOT_FOUND", "of version '9'", {"model_version": "9"}
    ),
    "no token": Refused(
        [photos(RED)], "401", "UNAUTHENTICATED", "the token is missing", {"token": ""}
    ),
    "a wrong token": Refused(
        [photos(RED)], "401", "UNAUTHENTICATED", "Authorization: Bearer TOKEN", {"token": "x"}
    ),
    "a reply too large": Refused(
        [photos(RED), *options(size=8192)], "413", "INVALID_ARGUMENT", "reply"
    ),
    "a request too large": Refused(
        [photos(bytes(30_000_000))], "413", "RESOURCE_EXHAUSTED", "larger than max"
    ),
}
