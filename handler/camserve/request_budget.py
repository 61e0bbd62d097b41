"""What is left of the limits that all photos of a request share."""

from __future__ import annotations

from typing import Final

from camserve.errors import RequestError
from camserve.images import InputFrame
from camserve.settings import Limits

#: What the caller of a reply that is too large can do.
REDUCE_REPLY_HINT: Final = (
    "Ask for a smaller size, for jpeg or webp, for fewer targets or outputs, or send fewer photos"
)


class RequestBudget:
    """What is left of the limits that all photos of a request share.

    Attributes:
        pixels: that further photos may have.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.pixels = limits.pixels
        self._drawn_pixels = limits.drawn_pixels
        self._forwards = limits.forwards

    def reserve(self, frame: InputFrame, drawn_pixels: int) -> None:
        """Reserve a photo's pixels, and those of the pictures that are drawn of it.

        Raises:
            RequestError: ``reply_too_large``.
        """
        self.pixels -= frame.width * frame.height
        self.reserve_drawn(drawn_pixels)

    def reserve_drawn(self, drawn_pixels: int, reserved: int = 0) -> None:
        """Reserve the pixels of a photo's pictures.

        Args:
            drawn_pixels: of all its pictures.
            reserved: how many of them are reserved already.

        Raises:
            RequestError: ``reply_too_large``.
        """
        left = self._drawn_pixels + reserved
        if drawn_pixels > left:
            raise RequestError(
                "reply_too_large",
                f"the pictures of this photo would have {drawn_pixels} pixels, with {left} left of "
                f"the {self._limits.drawn_pixels} that a reply may have. {REDUCE_REPLY_HINT}",
            )
        self._drawn_pixels = left - drawn_pixels

    def reserve_forwards(self, forwards: int, reserved: int = 0) -> None:
        """Reserve the forward passes of a photo's masked forms.

        Args:
            forwards: of all its explanations.
            reserved: how many of them are reserved already.

        Raises:
            RequestError: ``too_many_forwards``.
        """
        left = self._forwards + reserved
        if forwards > left:
            raise RequestError(
                "too_many_forwards",
                f"option 'faithfulness' asks for {forwards} forward passes of this photo, with "
                f"{left} left of the {self._limits.forwards} that a request may take; accepted: "
                "fewer figures, fewer targets, or fewer photos in a request",
            )
        self._forwards = left - forwards
