"""One photo on its way to the network: first what it asks for, then its pixels.

Planning reads no more than the photo's header, in the order of the photos, since those of a request
share its limits. Making ready decodes, and may be done for many photos side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from camserve.errors import RequestError, shown
from camserve.explain.explanations import Wish
from camserve.explain.targets import Labels
from camserve.images import decode, render
from camserve.images.decode import Header
from camserve.images.geometry import Frame, Pixels, View
from camserve.options import Options, Size
from camserve.protocols.parsing import Instance
from camserve.settings import Limits, Preprocess, Settings


@dataclass(frozen=True)
class Plan:
    """A photo that can be answered, not decoded yet.

    Attributes:
        image: the file.
        header: of it.
        size: of the reply's pictures; ``model`` where there are none.
        options: what is asked of the photo.
        wish: what is to be explained of it.
    """

    image: bytes | bytearray
    header: Header
    size: Size
    options: Options
    wish: Wish


@dataclass(frozen=True)
class Job:
    """A photo that is ready for the network.

    Attributes:
        crop: (crop, crop, 3) RGB, 0 to 255: what the network sees, before normalisation.
        frame: where that lies in the photo.
        view: what the reply's pictures show.
        options: what is asked of the photo.
        wish: what is to be explained of it.
        bytes: of its file.
    """

    crop: Pixels
    frame: Frame
    view: View
    options: Options
    wish: Wish
    bytes: int


class Purse:
    """What is left of the limits that all photos of a request share.

    Attributes:
        pixels: that further photos may have.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.pixels = limits.pixels
        self._drawn = limits.drawn_pixels

    def spend(self, frame: Frame, drawn: int) -> None:
        """Take a photo, and the pixels of the pictures that are to be drawn of it.

        Raises:
            RequestError: ``reply_too_large``.
        """
        self.pixels -= frame.width * frame.height
        if drawn > self._drawn:
            raise RequestError(
                "reply_too_large",
                f"the pictures of this photo would have {drawn} pixels, with {self._drawn} left of "
                f"the {self._limits.drawn_pixels} that a reply may have. {SMALLER}",
            )
        self._drawn -= drawn


#: What to do about a reply that is too large.
SMALLER: Final = (
    "Ask for a smaller size, for jpeg or webp, for fewer targets or outputs, or send fewer photos"
)


def plan(instance: Instance, settings: Settings, labels: Labels, purse: Purse) -> Plan:
    """Hold what is asked of a photo to what the model has, and its size to the limits.

    Args:
        instance: as it was read.
        settings: of the operator.
        labels: of the model.
        purse: of the request.

    Raises:
        RequestError: the photo cannot be answered.
    """
    options, limits, preprocess = instance.options, settings.limits, settings.preprocess
    targets = labels.resolve(options.target, limits.targets)
    if options.top_k > len(labels):
        raise RequestError(
            "invalid_option",
            f"option 'top_k': {shown(options.top_k)} is not accepted; accepted: 1 to {len(labels)}",
        )
    if not options.explain:
        targets = ()
    header = decode.inspect(instance.image, limits, purse.pixels)
    pictured = len(targets) * len(render.PICTURES & set(options.outputs))
    # Where no picture is drawn, nothing of the photo need be kept.
    size = options.size if pictured else "model"
    frame = decode.frame(header, preprocess)
    frame_shown = decode.shown(frame, preprocess, size)
    purse.spend(frame, pictured * frame_shown.width * frame_shown.height)
    wish = Wish(targets, options.layer or (), options.method)
    return Plan(instance.image, header, size, options, wish)


def ready(plan: Plan, preprocess: Preprocess) -> Job:
    """Decode a photo, no larger than is needed, and cut out what the network sees.

    Raises:
        RequestError: ``invalid_image``.
    """
    reduced = decode.reduction(plan.header, preprocess, plan.size)
    photo = decode.decode(plan.image, plan.header, reduced)
    crop, frame = decode.fit(photo, preprocess)
    frame_shown = decode.shown(frame, preprocess, plan.size)
    view = decode.view(photo, crop, frame_shown, plan.size)
    return Job(crop, frame, view, plan.options, plan.wish, len(plan.image))
