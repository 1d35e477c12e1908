"""What commands write among the photos is not taken for photos by the next one."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from support.toy_photos import MODEL_OPTIONS, rows_of, write_photos
from underfire.cli import cli


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two photos."""
    folder = write_photos(tmp_path / "photos", 2)
    (folder / "manifest.csv").unlink()
    (folder / "broken.png").unlink()
    monkeypatch.chdir(folder)
    return folder


def call(*command: str) -> Result:
    result = CliRunner().invoke(cli, [*command, *MODEL_OPTIONS])
    assert result.exit_code == 0, result.output
    return result


def audit(*options: str) -> Result:
    return call("audit", ".", "--interpreters", "grad", "--attacks", "pgd", "--steps", "2", *options)


def test_an_audit_of_the_current_folder_goes_on_and_never_sees_itself(photos: Path) -> None:
    assert "Left out" not in audit().output
    (photos / "underfire-run" / "rows" / "part-00000.parquet").unlink()
    again = audit()
    assert again.output.count("Left out of the photos: 1 of underfire's own folders ('underfire-run')") == 1
    other = audit("--out", "other").output
    assert "('underfire-run')" in other
    assert "2 of 2 photos" in other
    assert rows_of(photos / "other") == rows_of(photos / "underfire-run")


def test_explain_and_attack_leave_out_what_they_wrote(photos: Path) -> None:
    once = call("explain", ".", "--interpreters", "grad")
    written = sorted(path.name for path in Path("underfire-maps").iterdir())
    assert written[0] == ".underfire"
    again = call("explain", ".", "--interpreters", "grad")
    assert again.stdout == once.stdout
    assert sorted(path.name for path in Path("underfire-maps").iterdir()) == written
    target = "1" if "photo-0.png  2" in once.stdout else "2"
    call("attack", "photo-0.png", "--interpreter", "grad", "--target-class", target, "--steps", "2")
    third = call("explain", ".", "--interpreters", "grad")
    assert third.stdout == once.stdout
    assert "2 of underfire's own folders ('underfire-attack', 'underfire-maps')" in third.stderr


def test_a_folder_of_the_users_own_is_not_marked(photos: Path) -> None:
    """It holds photos, which the next command must find."""
    call("explain", "photo-0.png", "--interpreters", "grad", "--out", ".")
    assert not (photos / ".underfire").exists()
