"""What is valid, before it is spoilt."""

from click.testing import CliRunner

from fuzz.case import Originals
from support.toy_photos import MODEL_OPTIONS, write_photos
from underfire.cli import cli

FAST = ("--interpreters", "cam", "--attacks", "pgd,adv2", "--steps", "2", "--batch-size", "2")
STUDIED = {
    "bound": ("--limit", "1"),
    "gap": ("--limit", "1"),
    "frontier": ("--limit", "1", "--grid", "4/255,8/255"),
    "transfer": (),
}
"""The studies that the audit has chapters of, and how they are called."""

OTHER, MANY, UNDISTURBED = "other", "many", "undisturbed"
"""Beside the originals: an audit of another seed, a folder of more photos, an audit of its first six."""

EVIDENCE, ENTRIES = "evidence", "entries"
"""Also the evidence of the audit, and its entries of the benchmark."""


def resume(originals: Originals, run: str) -> tuple[str, ...]:
    """The command that makes the audit, or goes on with it."""
    return ("audit", str(originals.photos), *MODEL_OPTIONS, *FAST, "--out", run)


def prepare(originals: Originals) -> None:
    """Makes them, and has every command used once: what is imported or cached then is nobody's fault later."""
    write_photos(originals.photos, 3)
    many = write_photos(originals.path / MANY, 12)
    _call(*resume(originals, str(originals.run)))
    _call(*resume(originals, str(originals.path / OTHER)), "--seed", "1")
    out = ("--limit", "6", "--out", str(originals.path / UNDISTURBED))
    _call("audit", str(many), *MODEL_OPTIONS, *FAST, *out)
    for name, options in STUDIED.items():
        _call("study", name, str(originals.run), *(MODEL_OPTIONS if options else ()), *options)
    _call("evidence", str(originals.run), "--out", str(originals.path / EVIDENCE))
    _call("benchmark", str(originals.run), "--out", str(originals.path / ENTRIES))
    shown = ("--interpreters", "cam", "--out", str(originals.path / "maps"))
    _call("explain", str(originals.photo), *MODEL_OPTIONS, *shown)
    fit = ("--interpreters", "cam,grad", "--fpr", "0.2", "--out", str(originals.detector))
    _call("detect", "fit", str(many), *MODEL_OPTIONS, *fit)
    _call("detect", "score", str(originals.detector), str(originals.photo), *MODEL_OPTIONS)


def _call(*command: str) -> None:
    ended = CliRunner().invoke(cli, command)
    if ended.exit_code:
        raise RuntimeError(f"{command}: {ended.output} {ended.exception!r}")
