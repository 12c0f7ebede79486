"""Images made on the spot."""

import io

import numpy as np
from PIL import Image

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr")


def image(width, height, seed=0):
    """Blocks of colour with noise on top, so that every way of resizing gives something else."""
    random = np.random.RandomState(seed)
    blocks = random.randint(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return Image.fromarray((blocks + random.randint(0, 56, (height, width, 3))).astype(np.uint8))


def encoded(image, form, **options):
    """The bytes of a file."""
    written = io.BytesIO()
    image.save(written, form, **options)
    return written.getvalue()
