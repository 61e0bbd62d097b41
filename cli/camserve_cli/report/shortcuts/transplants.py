"""What donors' photos can give to a recipient's: a region, colours, grain, shading, background.

Where several donors give, a pixel is the median of theirs. A mark that is the same in most of them
survives that; their objects, which differ in place and colour, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from camserve_cli.report.explained_photos import Pixels

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The sides of a region, as shares of the photo's: a corner, a strip along a side, the border.
CORNER: Final = 0.25
STRIP: Final = 0.18
BORDER: Final = 0.125
#: The width of the blur of a region's edge, as a share of a side: a sharp seam is a shape itself,
#: and a model that knows frames would take any copied border for one.
SEAM: Final = 0.03
#: The side of the corner that is repeated as the background of a whole photo, and how far it is
#: from the edges, so that it holds no frame.
TILE: Final = 0.3
TILE_MARGIN: Final = 0.1
#: Where a recipient keeps its own pixels when its background changes: its heat, as a share of 1.
OBJECT_HEAT: Final = 0.25
#: How many donors a property is the median of: so few that it varies as among the photos.
FEW: Final = 3
#: The width of the blur that takes the finest detail, as a share of a side.
FINE: Final = 1 / 80
#: Blurs of increasing width, as shares of a side.
BLURS: Final = tuple(0.004 * 1.25**step for step in range(16))
#: The width of the blur that parts grain, and shading, from the rest, as a share of a side.
GRAIN: Final = 1 / 40
SHADING: Final = 1 / 5
#: Masks of regions have this side.
_MASK_SIDE: Final = 120


@dataclass(frozen=True)
class Recipient:
    """A photo that receives something.

    Attributes:
        pixels: (H, W, 3) RGB.
        heat: (h, w) in [0, 1], its map.
    """

    pixels: Pixels
    heat: NDArray[np.floating]


#: What the donors give, each in the size of the recipient, and the recipient -> (H, W, 3) RGB.
Transplant = Callable[[Sequence[Pixels], Recipient], Pixels]


def copy_where(mask: Mask) -> Transplant:
    """Copies the donors' median where a mask (of any size) is true, without a sharp seam."""

    # Most photos of a report are of the same size, as the network saw them.
    @lru_cache(maxsize=8)
    def blurred(rows: int, columns: int) -> tuple[Mask, Plane]:
        inside = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        given = _blurred(inside, SEAM)
        # The far tail of the blur changes nothing that is seen.
        region = given > 0.01
        return region, given[region][:, None]

    def transplant(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
        region, share = blurred(*recipient.pixels.shape[:2])
        median = np.median([donor[region] for donor in donors], axis=0)
        changed = recipient.pixels.copy()
        changed[region] = _to_pixels(changed[region] * (1 - share) + median * share)
        return changed

    return transplant


def corner_masks() -> dict[str, Mask]:
    """The four corners, by a name that fits a sentence."""
    y, x = _places()
    return {
        f"the {row} {column} corner": np.maximum(down, across) < CORNER
        for row, down in (("upper", y), ("lower", 1 - y))
        for column, across in (("left", x), ("right", 1 - x))
    }


def edge_masks() -> dict[str, Mask]:
    """A strip along each of the four sides, and the border along all."""
    y, x = _places()
    return {
        "the top": y < STRIP,
        "the bottom": y > 1 - STRIP,
        "the left side": x < STRIP,
        "the right side": x > 1 - STRIP,
        "the border": np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) < BORDER,
    }


def match_colours(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
    """The mean and the standard deviation of each channel: the median of the donors'."""
    mean, deviation = _median_colours(donors[:FEW])
    own_mean, own_deviation = _mean_and_deviation(recipient.pixels)
    # A channel that is flat has no contrast to be raised.
    scale = deviation / np.maximum(own_deviation, 1.0)
    return _to_pixels((recipient.pixels - own_mean) * scale + mean)


def shift_colours(photos: Sequence[Pixels]) -> Transplant:
    """Moves the recipient's colours by as much as the donors' are from those of some photos.

    Where :func:`match_colours` gives all photos the same colours, each keeps its own here, and what
    the donors have in common is added.

    Args:
        photos: of all classes.
    """
    usual_mean, usual_deviation = _median_colours(photos)

    def transplant(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
        mean, deviation = _median_colours(donors)
        own_mean, _ = _mean_and_deviation(recipient.pixels)
        scale = deviation / np.maximum(usual_deviation, 1.0)
        return _to_pixels((recipient.pixels - own_mean) * scale + own_mean + mean - usual_mean)

    return transplant


def match_sharpness(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
    """Blurred until its edges are no sharper than the median of the donors'; never sharpened."""
    wanted = float(np.median([sharpness(donor) for donor in donors[:FEW]]))
    blurred = recipient.pixels
    for share in BLURS:
        if sharpness(blurred) <= wanted:
            break
        blurred = _to_pixels(_blurred(recipient.pixels, share, least=0.0))
    return blurred


def sharpness(photo: Pixels) -> float:
    """The finest detail of the edges, compared with that which is three times as coarse.

    The contrast and the number of edges hardly matter. A flat photo has 1.
    """
    fine, coarse = (
        float(np.quantile(np.abs(photo - _blurred(photo, share, least=0.1)), 0.99))
        for share in (FINE, 3 * FINE)
    )
    return fine / coarse if coarse > 0 else 1.0


def match_grain(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
    """What a blur removes, as in a calm corner of the first donor: noise, texture, blocks."""
    calm = _tiled(donors[0])
    return _to_pixels(_blurred(recipient.pixels, GRAIN) + calm - _blurred(calm, GRAIN))


def match_shading(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
    """The brightness of each part, compared with the whole: the median of the donors'."""
    median = np.median([donor.mean(axis=2) for donor in donors[:FEW]], axis=0)
    # One is added so that black photos have a brightness to be compared.
    given, own = (_blurred(photo, SHADING) + 1 for photo in (median, recipient.pixels.mean(axis=2)))
    ratio = (given / given.mean()) / (own / own.mean())
    return _to_pixels(recipient.pixels * ratio[..., None])


def replace_background(donors: Sequence[Pixels], recipient: Recipient) -> Pixels:
    """The first donor's calm corner, repeated, wherever the recipient has no heat."""
    rows, columns = recipient.pixels.shape[:2]
    heat = cv2.resize(recipient.heat.astype(np.float32), (columns, rows))
    hot = heat > OBJECT_HEAT * max(float(heat.max()), 1e-6)
    keep = _blurred(hot.astype(np.float32), GRAIN)[..., None]
    return _to_pixels(_tiled(donors[0]) * (1 - keep) + recipient.pixels * keep)


COLOURS: Final = "colours and contrast"
SHARPNESS: Final = "sharpness"
#: Transplants of a property of the whole photo, by a name that fits a sentence.
_PROPERTIES: Final[Mapping[str, Transplant]] = {
    COLOURS: match_colours,
    SHARPNESS: match_sharpness,
    "grain": match_grain,
    "shading": match_shading,
    "background": replace_background,
}
#: Their names, and that of :func:`shift_colours`.
TINT: Final = "tint and brightness"
PROPERTIES: Final = frozenset({*_PROPERTIES, TINT})


def property_transplants(photos: Sequence[Pixels]) -> dict[str, Transplant]:
    """The transplants of all properties, by name; ``photos`` are some of all classes."""
    return {**_PROPERTIES, TINT: shift_colours(photos)}


def resize_to(pixels: Pixels, like: Pixels) -> Pixels:
    """A photo in the size of another."""
    rows, columns = like.shape[:2]
    if pixels.shape[:2] == (rows, columns):
        return pixels
    smaller = pixels.shape[0] > rows
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=way), np.uint8)


def _places() -> NDArray[np.float64]:
    """The y and the x of each place of a mask, in (0, 1)."""
    return (np.mgrid[0:_MASK_SIDE, 0:_MASK_SIDE] + 0.5) / _MASK_SIDE


def _median_colours(photos: Sequence[Pixels]) -> tuple[Plane, Plane]:
    """(3,) the mean and the standard deviation of each channel: the medians of some photos'."""
    mean, deviation = np.median([_mean_and_deviation(photo) for photo in photos], axis=0)
    return mean, deviation


def _mean_and_deviation(photo: Pixels) -> tuple[Plane, Plane]:
    """(3,) of each channel."""
    mean, deviation = cv2.meanStdDev(photo)
    return mean[:, 0].astype(np.float32), deviation[:, 0].astype(np.float32)


def _tiled(donor: Pixels) -> Plane:
    """A corner of the donor, repeated: that with the second least detail.

    An object that reaches into a corner has more detail than a plain background, and less than a
    patterned one.
    """
    rows, columns = donor.shape[:2]
    down, across = (_tile_ranges(side) for side in (rows, columns))
    corners = [
        donor[up_down, left_right].astype(np.float32) for up_down in down for left_right in across
    ]
    detail = [float(np.square(corner - _blurred(corner, 0.1)).mean()) for corner in corners]
    tile = corners[int(np.argsort(detail)[1])]
    repeats = (-(-rows // tile.shape[0]), -(-columns // tile.shape[1]), 1)
    return np.tile(tile, repeats)[:rows, :columns]


def _tile_ranges(side: int) -> tuple[slice, slice]:
    """The first and the last range of a side for a tile, each some pixels from the end."""
    # Multiples of 8 keep a JPEG's blocks in their places.
    length, margin = (round(share * side / 8) * 8 for share in (TILE, TILE_MARGIN))
    length = max(length, 1)
    return slice(margin, margin + length), slice(side - margin - length, side - margin)


def _blurred(values: NDArray[np.generic], share: float, least: float = 0.8) -> Plane:
    """Blurred by a share of the shorter side, in pixels at least ``least``."""
    sigma = max(share * min(values.shape[:2]), least)
    blurred = cv2.GaussianBlur(
        values.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(blurred, np.float32)


def _to_pixels(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
