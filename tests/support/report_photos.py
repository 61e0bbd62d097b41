"""A folder of photos for reports: discs on grey, in folders of their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.color_resnet import COLOR_VALUES, LABELS, photo

#: Stands in the EXIF data of every photo, and must not stand in a report.
SECRET = "SECRETPLACE"


def write_photos(folder: Path, count: int, *, second_disc: int = 8) -> list[Path]:
    """Write photos of 160 x 120; in every ``second_disc``-th a larger disc is of another colour.

    So that is what the model predicts. The names are the same for the same numbers.
    """
    random = np.random.default_rng(0)
    written = []
    for number in range(count):
        colour = LABELS[number % len(LABELS)]
        other = LABELS[(number + 1) % len(LABELS)]
        x, y = (int(random.integers(low, high)) for low, high in ((40, 60), (40, 80)))
        discs = [(colour, (x, y), 16)]
        if number % second_disc == second_disc - 1:
            discs.append((other, (110, 60), 28))
        path = folder / colour / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Acme", "X100"
        exif[0x013B] = SECRET
        exif.get_ifd(0x8825)[29] = SECRET
        pixels = photo(*discs, width=160, height=120)
        Image.fromarray(pixels).save(path, exif=exif, quality=95, comment=SECRET.encode())
        written.append(path)
    assert set(COLOR_VALUES) >= {path.parent.name for path in written}
    return written
