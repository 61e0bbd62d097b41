"""What decoders report of files that are damaged but show something."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from camserve.images.geometry import Pixels

#: A code in a reply's ``image.warnings``.
FileWarning = Literal["damaged", "no_end_marker", "profile_not_applied"]
#: The file is damaged: parts of the photo may be missing or wrong.
DAMAGED: Final[FileWarning] = "damaged"
#: Of the damage: all that is missing is what ends the file; every pixel is there.
NO_END_MARKER: Final[FileWarning] = "no_end_marker"
END_MISSING: Final[tuple[FileWarning, ...]] = (DAMAGED, NO_END_MARKER)
#: The colour profile could not be used, and ``handler.preprocess.icc`` is srgb.
PROFILE_NOT_APPLIED: Final[FileWarning] = "profile_not_applied"


class Decoded(NamedTuple):
    """A file's pixels.

    Attributes:
        pixels: (height, width, 3) RGB, 0 to 255, as the file has them.
        warnings: what the decoder reported.
    """

    pixels: Pixels
    warnings: tuple[FileWarning, ...] = ()
