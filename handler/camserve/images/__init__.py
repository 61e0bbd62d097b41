"""Files -> pixels -> the network's input, and maps -> pictures.

A file's header is held to the limits (:func:`read_header`) before it is decoded
(:func:`decode_photo`); the photo is resized and cropped to the network's input; what is drawn for a
reply is mapped back to the photo's own pixels, whatever its EXIF orientation. This wing knows no
PyTorch.
"""

from camserve.images.background import output_background, output_frame
from camserve.images.decode import DecodedPhoto, decode_photo
from camserve.images.geometry import Background, Box, InputFrame, Pixels
from camserve.images.header import FORMATS, ImageHeader, read_header
from camserve.images.preprocess import downscale_factor, input_frame, resize_and_crop
from camserve.images.render import (
    PICTURES,
    EncodedImage,
    Heatmap,
    HotRegion,
    Map,
    RenderedOutput,
    render_outputs,
)

__all__ = [
    "FORMATS",
    "PICTURES",
    "Background",
    "Box",
    "DecodedPhoto",
    "EncodedImage",
    "Heatmap",
    "HotRegion",
    "ImageHeader",
    "InputFrame",
    "Map",
    "Pixels",
    "RenderedOutput",
    "decode_photo",
    "downscale_factor",
    "input_frame",
    "output_background",
    "output_frame",
    "read_header",
    "render_outputs",
    "resize_and_crop",
]
