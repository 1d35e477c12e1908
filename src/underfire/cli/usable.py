"""Photos that a command can use: those that can be decoded."""

from underfire.cli.console import notes
from underfire.cli.options import photos_of
from underfire.files import quoted
from underfire.images.dataset import NamedPhoto, Photos, read_sources
from underfire.models.classifier import Classifier


def usable(named: tuple[str, ...], classifier: Classifier, limit: int | None = None) -> Photos:
    """The first photos that can be decoded, ``limit`` at most; the others before them are named on stderr."""
    found = photos_of(named, classifier)
    sources: list[NamedPhoto] = []
    skipped = [(skip.name, skip.reason) for skip in found.skipped]
    for photo in found.photos:
        if len(sources) == limit:
            break
        good, bad = read_sources([photo], classifier)
        sources += good
        skipped += bad
    for name, reason in skipped:
        notes().print(f"Skipped {quoted(name)}: {reason}")
    return Photos(sources, classifier)
