"""Every way a file may store colours, as 8-bit sRGB."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageCms

from underfire.errors import InputError

_GREY = frozenset({"1", "L", "LA", "La"})
_COLORED = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"})
_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """``image``, loaded, as mode RGB in sRGB.

    * Transparent pixels are laid on white.
    * 16-bit grey is scaled, 65535 to 255, rounding to the nearest.
    * An embedded ICC profile is converted to sRGB; one that is broken or made for another kind of image is
      ignored, as browsers do, and so is one that calls itself sRGB.
    * CMYK without a profile: R = (255 - C)(255 - K)/255, and so on.

    Raises:
        InputError: a mode whose values have no defined range or colour (floating point, 32-bit
            integers, Lab). The message is the reason alone, a clause.
    """
    alpha: Image.Image | None = None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        base, alpha = _from_16_bit(image)
    elif image.mode == "CMYK":
        base = image
    elif image.mode in _GREY | _COLORED:
        if image.has_transparency_data:
            alpha = image.convert("RGBA").getchannel("A")
        base = image.convert("L" if image.mode in _GREY else "RGB")
    else:
        raise InputError(f"its pixels are of mode {image.mode}, which has no defined colours; save it as 8-bit RGB")
    colored = _to_srgb(base, image.info.get("icc_profile"))
    if alpha is None:
        return colored
    laid = Image.new("RGB", image.size, _WHITE)
    laid.paste(colored, mask=alpha)
    return laid


def _from_16_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """8-bit grey and, where one grey is declared transparent, the alpha channel."""
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey, None
    return grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def _to_srgb(image: Image.Image, icc_profile: object) -> Image.Image:
    """``image`` of mode L, RGB or CMYK as RGB."""
    converted: Image.Image | None = None
    # A broken profile takes nothing from the pixels: they are then what they would be without it.
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        if isinstance(icc_profile, bytes) and icc_profile:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            if not ImageCms.getProfileDescription(profile).startswith("sRGB"):
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    return image.convert("RGB") if converted is None else converted
