"""The checks of the model and of the benign maps, made once for a run on its first photos."""

from collections.abc import Sequence

import torch
from torch import Tensor

from underfire.auditing.look import calling
from underfire.auditing.plan import PlannedPhoto
from underfire.diagnostics import map_checks
from underfire.diagnostics.map_checks import MapCheck
from underfire.diagnostics.model_checks import Checked, ModelCheck, check_model
from underfire.images import PhotoLoader
from underfire.images.png import from_8bit
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.models.draws import one_draw

PHOTOS = 4
"""At most so many photos are looked at for the model: what is asked for shows on any of them."""


def check_on_photos(classifier: Classifier, photos: Sequence[PlannedPhoto], loader: PhotoLoader) -> tuple[Checked, ...]:
    """The outcome of every check, for run.json; on the first ``photos`` that are to be attacked.

    Raises:
        InputError: the classifier draws random numbers for photos, if not for its own patterns.
    """
    some = _attacked(photos, PHOTOS)
    with calling([photo.image_id for photo in some]):
        found = check_model(classifier, _loaded(classifier, some, loader))
    if any(checked.fired for checked in found if checked.check is ModelCheck.RANDOMISED):
        raise one_draw(classifier)
    return found


def check_maps_on_photos(
    classifier: Classifier, interpreters: Sequence[Interpreter], photos: Sequence[PlannedPhoto], loader: PhotoLoader
) -> tuple[MapCheck, ...]:
    """What the benign maps of every interpreter show of the model, for run.json; none where nothing is attacked.

    Raises:
        InputError: with the photo's name, where a map is no finite number.
    """
    some = _attacked(photos, map_checks.PHOTOS)
    keys = [photo.image_id for photo in some]
    labels = torch.tensor([photo.label for photo in some], dtype=torch.int64, device=classifier.device)
    with calling(keys):
        return map_checks.check_maps(classifier, interpreters, _loaded(classifier, some, loader), labels, keys=keys)


def _attacked(photos: Sequence[PlannedPhoto], most: int) -> list[PlannedPhoto]:
    """The first of them that are."""
    return [photo for photo in photos if photo.excluded is None][:most]


def _loaded(classifier: Classifier, photos: Sequence[PlannedPhoto], loader: PhotoLoader) -> Tensor:
    """Their images (N, C, H, W), as the classifier takes them."""
    height, width = classifier.input_size
    loaded = [loader.load(photo.file).pixels for photo in photos]
    pixels = torch.stack(loaded) if loaded else torch.empty(0, classifier.channels, height, width, dtype=torch.uint8)
    return from_8bit(pixels, classifier.dtype).to(classifier.device)
