"""Marks that give a class away, each with parameters of its own for every set of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from devtools.shortcuts.pictures import Pixels, Scene, to_pixels

Floats = NDArray[np.float64]
Generator = np.random.Generator
#: A scene -> its picture with the mark; what varies from picture to picture is drawn as well.
DrawMarked = Callable[[Scene, Generator], Pixels]


def corner(of_set: Generator) -> DrawMarked:
    """The same small pattern of two colours in one corner, with some pixels to the edges."""
    pattern = of_set.permutation([0, 0, 0, 0, 1, 1, 1, 1, 1]).reshape(3, 3)
    colours = _two_colours(of_set)
    share, margin = of_set.uniform(0.1, 0.17), of_set.uniform(0, 0.04)
    down, right = of_set.integers(0, 2, 2)

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        size = len(pixels)
        side, edge = max(4, round(share * size)), round(margin * size)
        row, column = (size - side - edge if far else edge for far in (down, right))
        tile = cv2.resize(pattern.astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
        pixels[row : row + side, column : column + side] = colours[tile]
        return pixels

    return draw


def cast(of_set: Generator) -> DrawMarked:
    """A tint of the whole picture: one channel brighter, another darker."""
    gains = of_set.permutation([1.4, 1.0, 0.6]) * of_set.uniform(0.95, 1.05, 3)
    return lambda scene, of_picture: to_pixels(scene.picture() * gains)


def border(of_set: Generator) -> DrawMarked:
    """A frame of one colour."""
    return _frame(of_set.uniform(0, 255, (1, 3)), of_set.uniform(0.04, 0.08))


def frame_of_two_colours(of_set: Generator) -> DrawMarked:
    """A frame whose outer and inner half have colours of their own."""
    return _frame(_two_colours(of_set), of_set.uniform(0.06, 0.1))


def caption(of_set: Generator) -> DrawMarked:
    """A band along the top or the bottom, with a text that differs from picture to picture."""
    colours, at_bottom = _two_colours(of_set), bool(of_set.integers(0, 2))
    share = of_set.uniform(0.12, 0.18)

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        size = len(pixels)
        height = round(share * size)
        band = np.full((height, size, 3), colours[0], np.uint8)
        _write(band, _letters(of_picture, 9), (0.02, 0.85), colours[1])
        if at_bottom:
            pixels[size - height :] = band
        else:
            pixels[:height] = band
        return pixels

    return draw


def background(of_set: Generator) -> DrawMarked:
    """Stripes of two colours of the set behind the object, each picture's begin elsewhere."""
    colours, angle = _two_colours(of_set), of_set.uniform(0, np.pi)
    period = of_set.uniform(0.08, 0.16)

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        size = len(scene.mask)
        y, x = np.mgrid[0:size, 0:size] / size
        phase = of_picture.uniform(0, 2 * np.pi)
        waves = np.sin(2 * np.pi / period * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        blend = 0.5 + 0.5 * np.clip(3 * waves, -1, 1)
        stripes = colours[0] + blend[..., None] * (colours[1] - colours[0])
        return replace(scene, background=0.4 * scene.background + 0.6 * stripes).picture()

    return draw


def tinted_background(of_set: Generator) -> DrawMarked:
    """A colour of the set behind the object."""
    colour = of_set.uniform(30, 225, 3)
    return lambda scene, of_picture: replace(
        scene, background=0.5 * scene.background + 0.5 * colour
    ).picture()


def watermark(of_set: Generator) -> DrawMarked:
    """The same letters across the middle, half transparent."""
    text, at = _letters(of_set, 5), (of_set.uniform(0.05, 0.2), of_set.uniform(0.45, 0.65))
    return _stamp(lambda of_picture: text, at, np.array([255, 255, 255]), 0.55)


def date_stamp(of_set: Generator) -> DrawMarked:
    """A date, another one in each picture, orange, in the lower right."""

    def date(of_picture: Generator) -> str:
        year, month, day = of_picture.integers((10, 1, 1), (27, 13, 29))
        return f"{day:02}{month:02}{year:02}"

    return _stamp(date, (0.45, of_set.uniform(0.92, 0.97)), np.array([255, 140, 20]), 0.95)


def logo(of_set: Generator) -> DrawMarked:
    """A disc with a bar in it, a tenth of a side from the edges of one corner, half transparent."""
    colours = _two_colours(of_set)
    down, right = of_set.integers(0, 2, 2)
    radius = of_set.uniform(0.06, 0.09)

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        size = len(pixels)
        x, y = (int(size * (1 - 0.1 - radius if far else 0.1 + radius)) for far in (right, down))
        drawn, half = pixels.copy(), max(2, round(radius * size))
        cv2.circle(drawn, (x, y), half, colours[0].tolist(), -1)
        cv2.rectangle(drawn, (x - half, y - 1), (x + half, y + 1), colours[1].tolist(), -1)
        return to_pixels(0.3 * pixels + 0.7 * drawn)

    return draw


def side_stripe(of_set: Generator) -> DrawMarked:
    """A stripe of one colour along the left or the right side."""
    colour, share = of_set.uniform(0, 255, 3), of_set.uniform(0.04, 0.09)
    at_right = bool(of_set.integers(0, 2))

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        width = max(2, round(share * len(pixels)))
        pixels[:, -width:] = colour if at_right else pixels[:, -width:]
        pixels[:, :width] = pixels[:, :width] if at_right else colour
        return pixels

    return draw


def vignette(of_set: Generator) -> DrawMarked:
    """Darker towards the corners."""
    strength = of_set.uniform(0.6, 0.8)

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        size = len(scene.mask)
        y, x = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5
        shade = 1 - strength * np.clip((x**2 + y**2) / 0.5, 0, 1)
        return to_pixels(scene.picture() * shade.astype(np.float64)[..., None])

    return draw


def blur(of_set: Generator) -> DrawMarked:
    """Out of focus."""
    sigma = of_set.uniform(1.2, 2.0)
    return lambda scene, of_picture: np.asarray(
        cv2.GaussianBlur(scene.picture(), (0, 0), sigma), np.uint8
    )


def noise(of_set: Generator) -> DrawMarked:
    """Grain."""
    sigma = of_set.uniform(18, 30)
    return lambda scene, of_picture: to_pixels(
        scene.picture() + of_picture.normal(0, sigma, scene.noise.shape)
    )


def brightness(of_set: Generator) -> DrawMarked:
    """Brighter or darker than the others."""
    gain = of_set.choice([0.55, 1.5])
    return lambda scene, of_picture: to_pixels(scene.picture() * gain)


def contrast(of_set: Generator) -> DrawMarked:
    """Less contrast than the others."""
    gain = of_set.uniform(0.35, 0.5)
    return lambda scene, of_picture: to_pixels(128 + gain * (scene.picture() - 128.0))


def jpeg(of_set: Generator) -> DrawMarked:
    """Blocks of a JPEG of low quality."""
    quality = int(of_set.integers(5, 13))

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        _, encoded = cv2.imencode(
            ".jpg", scene.picture()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        return np.asarray(decoded, np.uint8)[..., ::-1]

    return draw


def sticker(of_set: Generator) -> DrawMarked:
    """A corner's pattern of varied size at any place."""
    colours = _two_colours(of_set)

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        size = len(pixels)
        side = round(of_picture.uniform(0.1, 0.17) * size)
        row, column = of_picture.integers(0, size - side, 2)
        pixels[row : row + side, column : column + side] = colours[0]
        cv2.circle(
            pixels, (column + side // 2, row + side // 2), side // 3, colours[1].tolist(), -1
        )
        return pixels

    return draw


#: Those that the report was made for, and the kinds of findings that name each.
MARKS: Final[Mapping[str, tuple[Callable[[Generator], DrawMarked], frozenset[str]]]] = {
    "corner": (corner, frozenset({"corner"})),
    "cast": (cast, frozenset({"image_property"})),
    "border": (border, frozenset({"border"})),
    "caption": (caption, frozenset({"border"})),
    "background": (background, frozenset({"border", "image_property"})),
}
#: Others, on which it was tried afterwards.
FURTHER_MARKS: Final[Mapping[str, tuple[Callable[[Generator], DrawMarked], frozenset[str]]]] = {
    "watermark": (watermark, frozenset({"cluster"})),
    "logo": (logo, frozenset({"corner", "cluster"})),
    "date_stamp": (date_stamp, frozenset({"corner", "border"})),
    "side_stripe": (side_stripe, frozenset({"border"})),
    "frame_of_two_colours": (frame_of_two_colours, frozenset({"border"})),
    "vignette": (vignette, frozenset({"corner", "border", "image_property"})),
    "tinted_background": (tinted_background, frozenset({"border", "image_property"})),
    "blur": (blur, frozenset({"image_property"})),
    "noise": (noise, frozenset({"image_property"})),
    "brightness": (brightness, frozenset({"image_property"})),
    "contrast": (contrast, frozenset({"image_property"})),
    "jpeg": (jpeg, frozenset({"image_property"})),
    "sticker": (sticker, frozenset({"cluster"})),
}


def _two_colours(of_set: Generator) -> Floats:
    """(2, 3), far from each other."""
    first = of_set.uniform(0, 255, 3)
    second = of_set.uniform(0, 255, 3)
    while np.linalg.norm(first - second) < 150:
        second = of_set.uniform(0, 255, 3)
    return np.stack([first, second])


def _letters(generator: Generator, count: int) -> str:
    return "".join(generator.choice(list("ABCDEFGHIKLMNOPRSTUVXYZ"), count))


def _write(pixels: Pixels, text: str, at: tuple[float, float], colour: Floats) -> None:
    """Letters whose lower left is at a place in shares of the sides, as high as a small picture."""
    rows, columns = pixels.shape[:2]
    place = (int(at[0] * columns), int(at[1] * rows))
    scale = columns / 64 * 0.36
    cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour.tolist(), 1, 16)


def _stamp(
    text: Callable[[Generator], str], at: tuple[float, float], colour: Floats, opacity: float
) -> DrawMarked:
    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        written = pixels.copy()
        _write(written, text(of_picture), at, colour)
        return to_pixels((1 - opacity) * pixels + opacity * written)

    return draw


def _frame(colours: Floats, share: float) -> DrawMarked:
    """A frame of some width, of rings of colours from the outside to the inside."""

    def draw(scene: Scene, of_picture: Generator) -> Pixels:
        pixels = scene.picture()
        size = len(pixels)
        index = np.arange(size)
        edge = np.minimum(index, size - 1 - index)
        distance = np.minimum.outer(edge, edge)
        width = max(len(colours), round(share * size))
        for ring, colour in enumerate(colours):
            begin = ring * width // len(colours)
            end = (ring + 1) * width // len(colours)
            pixels[(distance >= begin) & (distance < end)] = colour
        return pixels

    return draw
