"""Predictions and their Grad-CAM explanations for one batch of requests.

Nothing in this package knows TorchServe: ``gradcam_handler.py`` beside it is the adapter.
"""

import os

__version__ = "0.1.0"

#: The most pixels that an operator may allow a photo, and its longest side.
PHOTO_PIXELS = 2**27
PHOTO_SIDE = 2**16

# OpenCV reads its own limits once, while it is imported. A photo is held to the operator's by its
# header; these are for the file whose header tells OpenCV something else than it told us.
for _name, _most in (("PIXELS", PHOTO_PIXELS), ("WIDTH", PHOTO_SIDE), ("HEIGHT", PHOTO_SIDE)):
    os.environ[f"OPENCV_IO_MAX_IMAGE_{_name}"] = str(_most)
