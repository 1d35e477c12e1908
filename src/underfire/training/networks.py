"""What the trainings of masking networks have in common."""

from collections.abc import Callable
from pathlib import Path

from underfire.images.dataset import Split
from underfire.interpreters.masking.network import MaskingNetwork
from underfire.models.classifier import Classifier
from underfire.models.decisions import check_exclusive
from underfire.training.loop import Lesson, Listener, train
from underfire.training.plan import RtsPlan


def train_network(
    lesson_of: Callable[[], Lesson],
    classifier: Classifier,
    photos: Split,
    out: Path,
    *,
    plan: RtsPlan,
    listener: Listener,
    encoder: Classifier | None,
    **method: str,
) -> MaskingNetwork:
    """The masking network that a lesson trains for ``classifier``, as it is in ``out``; see ``loop.train``.

    Args:
        lesson_of: makes the lesson.
        classifier: what the maps shall explain.
        photos: with or without labels: the classifier's own top class counts.
        out: the file of weights.
        plan: the settings.
        listener: hears how it comes along.
        encoder: a classifier whose features are read in place of the audited one's.
        method: what else decides the weights.
    """
    check_exclusive("masking networks", exclusive=classifier.decision.exclusive)
    read = None if encoder is None else encoder.fingerprint()
    train(lesson_of, classifier, photos, out, plan=plan, listener=listener, encoder=read, **method)
    return MaskingNetwork.load(out, classifier, encoder=encoder)
