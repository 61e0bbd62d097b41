"""The ``limits:`` section of the operator's settings."""

from __future__ import annotations

from pydantic import Field

from camserve import PHOTO_PIXELS, PHOTO_SIDE
from camserve.validation import FloatNotBool, FrozenModel, IntNotBool


class Limits(FrozenModel):
    """Upper limits of a request; checked before the work is done."""

    photo_bytes: IntNotBool = Field(
        20_000_000, ge=1, description="the size of one photo's file in bytes, at least 1"
    )
    pixels: IntNotBool = Field(
        50_000_000,
        ge=1,
        le=PHOTO_PIXELS,
        description=f"width x height of all photos of a request together, 1 to {PHOTO_PIXELS}",
    )
    side: IntNotBool = Field(
        16_384,
        ge=1,
        le=PHOTO_SIDE,
        description=f"a photo's longer side in pixels, 1 to {PHOTO_SIDE}",
    )
    aspect_ratio: FloatNotBool = Field(
        20.0, ge=1, description="the longer side over the shorter one, at least 1"
    )
    json_bytes: IntNotBool = Field(
        65_536, ge=1, description="the size of options in JSON in bytes, at least 1"
    )
    json_values: IntNotBool = Field(
        10_000, ge=1, description="values in one request's JSON, at least 1"
    )
    json_depth: IntNotBool = Field(
        16, ge=1, le=100, description="how deep one request's JSON may be nested, 1 to 100"
    )
    instances: IntNotBool = Field(32, ge=1, description="photos in one request, at least 1")
    targets: IntNotBool = Field(16, ge=1, description="scores explained for one photo, at least 1")
    forwards: IntNotBool = Field(
        64,
        ge=0,
        description="forward passes of masked photos for one request's faithfulness, at least 0",
    )
    drawn_pixels: IntNotBool = Field(
        64_000_000, ge=1, description="pixels of all pictures in one reply, at least 1"
    )
    reply_bytes: IntNotBool = Field(
        60_000_000, ge=1, description="the size of one reply in bytes, at least 1"
    )
