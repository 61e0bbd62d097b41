"""The process-wide settings of OpenCV and Pillow that this wing relies on.

OpenCV's own limits of an image's size are not among them: it reads these from the environment while
it is imported, so ``camserve/__init__.py`` sets them, before anything here can import it.
"""

from __future__ import annotations

import logging
import warnings

import cv2
from PIL import AvifImagePlugin, Image


def configure_libraries() -> None:
    """Set them; calling this again changes nothing."""
    # A batch's photos are decoded in parallel; threads within each would only compete with that.
    cv2.setNumThreads(1)
    # An invalid file is the caller's error and answered as one; the worker's log needs no line.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # The operator's settings limit a photo's size, by its header; Pillow's limit would come first.
    Image.MAX_IMAGE_PIXELS = None
    # As for OpenCV; by default it would start as many as the machine has cores for each photo.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    # Pillow warns of odd metadata that a photo does not depend on. Filtered once for the process,
    # because catch_warnings is not thread-safe.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def enable_heic() -> None:
    """Let Pillow read HEIC, by pillow-heif; calling this again changes nothing.

    Raises:
        ImportError: pillow-heif is not installed.
    """
    import pillow_heif

    pillow_heif.register_heif_opener(
        thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
    )
