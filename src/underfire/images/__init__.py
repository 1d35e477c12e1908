"""Photos in, 8-bit pictures out.

:func:`find_photos` and :func:`builtin_photos` say which photos there are and what is known of them; nothing
is decoded there. :func:`load_photo` decodes one and prepares it for a classifier. Whatever cannot be used is
an :class:`~underfire.errors.InputError` or a :class:`Skipped` with its name and the reason; only names that
begin with a dot are passed over quietly.
"""

from underfire.images.builtin import builtin_photos
from underfire.images.decode import PhotoLoader, Pixels, load_photo
from underfire.images.png import read_png, save_png
from underfire.images.preprocessing import Preprocessing
from underfire.images.records import Photo, PhotoSet, Skipped
from underfire.images.sources import find_photos

__all__ = [
    "Photo",
    "PhotoLoader",
    "PhotoSet",
    "Pixels",
    "Preprocessing",
    "Skipped",
    "builtin_photos",
    "find_photos",
    "load_photo",
    "read_png",
    "save_png",
]
