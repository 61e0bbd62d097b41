"""Photos to try a model with: scikit-image carries them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from camserve_cli.errors import CommandError


def sample_photo(name: str) -> Path:
    """A photo of scikit-image's, as ``coffee.png``.

    Raises:
        CommandError: scikit-image is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise CommandError(
            "scikit-image, which carries the photos, is not installed; accepted: "
            "pip install scikit-image"
        )
    return Path(spec.origin).parent / "data" / name
