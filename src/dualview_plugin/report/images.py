"""Images as data URIs that are small enough to be carried in the page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Images up to this side stay pixel for pixel, as PNG. Larger ones are reduced to SIDE and stored as JPEG.
_PIXEL_SIDE = 48
_SIDE = 96


def data_uri(image: NDArray[Any]) -> str:
    """The image as a ``data:`` URI.

    Args:
        image: (height, width) or (height, width, 3), with values in [0, 1].
    """
    picture = Image.fromarray((np.asarray(image) * 255).round().astype(np.uint8))
    buffer = io.BytesIO()
    if max(picture.size) <= _PIXEL_SIDE:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((_SIDE, _SIDE))
        picture.convert("RGB").save(buffer, "JPEG", quality=80)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
