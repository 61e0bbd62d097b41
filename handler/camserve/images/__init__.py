"""Files -> pixels -> the network's input, and maps -> pictures.

A file's format is recognised and its header checked against the limits (:func:`read_header`)
before the file is decoded (:func:`decode_photo`). The photo is resized and cropped to the network's
input. What is rendered for a reply is mapped back to the pixels of the photo's file, whatever its
EXIF orientation. This wing does not use PyTorch.
"""

from camserve.images.background import output_background, output_frame
from camserve.images.decode import DecodedPhoto, decode_photo
from camserve.images.formats import enable_decoders
from camserve.images.geometry import Background, Box, InputFrame, Pixels, upright_size
from camserve.images.header import ImageHeader, read_header
from camserve.images.heatmap import Heatmap, Map
from camserve.images.library_settings import configure_libraries
from camserve.images.map_statistics import MapStatistics
from camserve.images.preprocess import (
    downscale_factor,
    input_frame,
    resize_and_crop,
    to_channels,
)
from camserve.images.regions import HotRegion
from camserve.images.render import PICTURES, EncodedImage, RenderedOutput, render_outputs
from camserve.images.tensor_photo import (
    decode_pixel_tensor,
    normalized_input,
    pixel_tensor_size,
    pixels_of_input,
)

__all__ = [
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
    "MapStatistics",
    "Pixels",
    "RenderedOutput",
    "decode_photo",
    "decode_pixel_tensor",
    "downscale_factor",
    "enable_decoders",
    "input_frame",
    "normalized_input",
    "output_background",
    "output_frame",
    "pixel_tensor_size",
    "pixels_of_input",
    "read_header",
    "render_outputs",
    "resize_and_crop",
    "to_channels",
    "upright_size",
]

configure_libraries()
