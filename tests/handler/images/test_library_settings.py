"""What importing the images wing sets in OpenCV and Pillow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import camserve
from tests.support.image_files import png_with_size

HANDLER = str(Path(camserve.__file__).parents[1])

SETTINGS = """
import logging, warnings
import camserve.images
import cv2
from PIL import Image

warnings.warn_explicit("odd metadata", UserWarning, "PIL/file.py", 1, module="PIL.file")
print(cv2.getNumThreads(), cv2.utils.logging.getLogLevel() == cv2.utils.logging.LOG_LEVEL_SILENT)
print(Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL").isEnabledFor(logging.ERROR))
"""

DECODE_STDIN = """
import sys, camserve.images, cv2, numpy

cv2.imdecode(numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8), cv2.IMREAD_COLOR)
"""


# In processes of their own: the libraries are imported and set up here already.
def run_python(script: str, data: bytes = b"") -> tuple[str, str]:
    """What a script prints to stdout and stderr, with ``data`` as its stdin."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=data,
        env={"PYTHONPATH": HANDLER},
        capture_output=True,
    )
    return done.stdout.decode(), done.stderr.decode()


def test_opencv_is_serial_and_silent_and_pillow_has_no_limit_and_no_warnings() -> None:
    assert run_python(SETTINGS) == ("1 True\nNone False\n", "")


@pytest.mark.parametrize(
    ("width", "height", "limit"),
    [(2**16 + 1, 1, "MAX_IMAGE_WIDTH"), (2**15, 2**13, "MAX_IMAGE_PIXELS")],
)
def test_opencv_has_limits_of_its_own(width: int, height: int, limit: str) -> None:
    # For a file whose header says another size to OpenCV than to Pillow.
    _, errors = run_python(DECODE_STDIN, png_with_size(width, height))
    assert f"CV_IO_{limit}" in errors
