"""One photo, decoded and prepared for a classifier."""

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from underfire.errors import InputError, ShortageError
from underfire.files import is_shortage, quoted, read_regular_file, shortened
from underfire.images.color import to_rgb
from underfire.images.geometry import check_photos_fit, prepared
from underfire.images.preprocessing import Preprocessing
from underfire.images.work import MAX_PIXELS, MeteredBytes, check_before, check_opened, too_large

MAX_FILE_BYTES = 512 * 2**20
"""Larger files are refused unread: MAX_PIXELS pixels need no more, even raw."""

MAX_KEPT_BYTES = 512 * 2**20
"""Of decoded photos at a classifier's input size, for a whole audit: 3566 at 224 × 224."""

# Pillow reads many more formats, of which one runs a PostScript interpreter; photos come in these.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM")

_BYTES_A_PIXEL = 10  # that decoding takes: the pixels, and the coefficients of a progressive JPEG
_ORIENTATION = 0x0112  # EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Pixels:
    """A photo as a classifier is to see it.

    ``pixels``: uint8 (C, H, W), sRGB or, of one channel, its luma; H and W are the classifier's input size.
    ``sha256``: of the file's bytes, in hex. ``original_size``: (width, height) of the whole upright photo.
    """

    pixels: Tensor
    sha256: str
    original_size: tuple[int, int]


class PhotoLoader:
    """Photos as a classifier is to see them, each decoded once, as far as memory allows.

    The file is read each time: a photo that has changed is decoded again.

    Args:
        preprocessing: what they are brought to, but for the normalisation.
        most: bytes of decoded photos that are kept.

    Raises:
        InputError: photos have not the channels that the classifier takes.
    """

    def __init__(self, preprocessing: Preprocessing, *, most: int = MAX_KEPT_BYTES) -> None:
        check_photos_fit(preprocessing)
        self._preprocessing = preprocessing
        self._room = most // (preprocessing.channels * math.prod(preprocessing.input_size))
        self._kept: dict[str, Pixels] = {}

    def load(self, path: str | Path) -> Pixels:
        """The photo at ``path``, see :func:`load_photo`."""
        try:
            data = read_regular_file(Path(path), limit=MAX_FILE_BYTES)
            sha256 = hashlib.sha256(data).hexdigest()
            kept = self._kept.get(sha256)
            if kept is not None:
                return kept
            photo = pixels_of(data, self._preprocessing)
        except InputError as error:
            raise InputError(f"{quoted(path)} is not a usable photo: {error}.") from error
        except (MemoryError, OSError) as error:
            why = "there is not enough memory" if isinstance(error, MemoryError) else error.strerror
            raise ShortageError(
                f"{quoted(path)} cannot be read for now: {why}; close other programs or raise the limit and give the "
                "same command again, or leave this photo out"
            ) from error
        if len(self._kept) < self._room:
            self._kept[sha256] = photo
        return photo


def load_photo(path: str | Path, preprocessing: Preprocessing) -> Pixels:
    """The photo at ``path``, upright by its EXIF, as a classifier of this ``preprocessing`` is to see it.

    The normalisation is left to the classifier. Photos that are too small are enlarged. Colours are sRGB as
    :func:`underfire.images.color.to_rgb` has them, transparency laid on white; grey is their luma (ITU-R 601). Of an
    animation it is the first frame.

    Raises:
        InputError: photos have not the channels that the classifier takes, or the file cannot be read, is not a photo
            of :data:`FORMATS`, is cut short or damaged, is larger than :data:`MAX_FILE_BYTES`, costs more than the
            limits of :mod:`underfire.images.work` allow, or has colours without a defined meaning.
        ShortageError: there is not enough memory, or there are too many open files, to decode it.
    """
    return PhotoLoader(preprocessing, most=0).load(path)


def pixels_of(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """The photo whose file has the bytes ``data``, as :func:`load_photo` has it.

    Raises:
        InputError: they are none. The message is the reason alone, a clause.
        MemoryError: there is not enough memory to tell.
    """
    image = decode(data)
    picture = prepared(image, preprocessing)
    pixels = torch.from_numpy(np.atleast_3d(np.array(picture))).permute(2, 0, 1).contiguous()
    return Pixels(pixels, hashlib.sha256(data).hexdigest(), image.size)


def decode(data: bytes) -> Image.Image:
    """The bytes of a photo as a whole upright sRGB image (mode RGB).

    Raises:
        InputError: they are none. The message is the reason alone, a clause.
        MemoryError: there is not enough memory to tell.
    """
    pixels = MAX_PIXELS if data[8:12] == b"WEBP" else 0  # whose decoder makes room before the size is known
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata; what matters here is whether the picture itself comes out.
            warnings.simplefilter("ignore")
            check_before(data)
            with Image.open(MeteredBytes(data), formats=FORMATS) as image:
                check_opened(image, data)
                pixels = image.width * image.height
                image.load()
                # After load(): some formats keep EXIF behind the pixels, and TIFF has turned itself by then.
                turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
                colored = to_rgb(image)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("the file is not an image of a format that is read: " + ", ".join(FORMATS)) from error
    except Image.DecompressionBombError as error:
        raise InputError(too_large("far more pixels")) from error
    except Exception as error:  # a decoder fed hostile bytes may raise anything
        if is_shortage(error):
            raise
        _check_memory(pixels)
        problem = shortened(f"{type(error).__name__}: {error}".replace("\n", " "))
        raise InputError(f"the image is cut short or damaged ({problem})") from error
    return colored if turn is None else colored.transpose(turn)


def _check_memory(pixels: int) -> None:
    """Raises MemoryError if a picture of so many would find too little: libjpeg then calls the file broken."""
    np.empty((pixels, _BYTES_A_PIXEL), np.uint8)  # is not written to, so it costs nothing where it can be had
