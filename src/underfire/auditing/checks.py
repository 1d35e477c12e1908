"""The checks of the model, made once for a run on its first photos."""

from collections.abc import Sequence

import torch

from underfire.auditing.look import calling
from underfire.auditing.plan import PlannedPhoto
from underfire.diagnostics.model_checks import Checked, check_model
from underfire.images import PhotoLoader
from underfire.images.png import from_8bit
from underfire.models.classifier import Classifier

PHOTOS = 4
"""At most so many photos are looked at: what is asked for shows on any of them."""


def check_on_photos(classifier: Classifier, photos: Sequence[PlannedPhoto], loader: PhotoLoader) -> tuple[Checked, ...]:
    """The outcome of every check, for run.json; on the first ``photos`` that are to be attacked."""
    some = [photo for photo in photos if photo.excluded is None][:PHOTOS]
    loaded = [loader.load(photo.file).pixels for photo in some]
    height, width = classifier.input_size
    pixels = torch.stack(loaded) if loaded else torch.empty(0, classifier.channels, height, width, dtype=torch.uint8)
    x = from_8bit(pixels, classifier.dtype).to(classifier.device)
    with calling([photo.image_id for photo in some]):
        return check_model(classifier, x)
