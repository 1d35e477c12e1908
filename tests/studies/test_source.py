"""Studies work on a finished audit, or on photos as an audit would take them."""

from pathlib import Path

import pytest

from support.toy_photos import BROKEN, found, toy_classifier, toy_plan
from underfire.auditing.run import read_run
from underfire.auditing.runner import run_audit
from underfire.errors import InputError
from underfire.studies.source import attacked, decide


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audited") / "run"
    run_audit(toy_plan(), found(photos), toy_classifier(), out)
    return out


def test_photos_are_decided_as_an_audit_does(run: Path, photos: Path) -> None:
    read, decided = read_run(run), decide(toy_plan(), found(photos), toy_classifier())
    assert decided.photos == read.photos
    assert [skip.name for skip in decided.unusable] == [BROKEN]
    assert read.skipped == len(decided.skipped) + len(decided.unusable)


def test_nothing_to_attack_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 1 photos can be attacked \(misclassified\)"):
        attacked([photo for photo in read_run(run).photos if photo.excluded])
