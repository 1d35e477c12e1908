"""The evidence of a run: a folder of documents, with the hashes of all that they rest on."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from underfire.auditing.gates import GateCheck
from underfire.auditing.run import Run
from underfire.auditing.store import write_json
from underfire.errors import InputError
from underfire.evidence.bom import bom, check_installed
from underfire.evidence.card import mapping, model_card
from underfire.evidence.junit import junit
from underfire.evidence.results import results
from underfire.evidence.sarif import sarif
from underfire.files import open_regular_file, quoted, write_whole
from underfire.report import REPORT

ARTIFACTS = "artifacts"
"""The folder of a run whose files grow with the photos; the bill of materials has them by one hash together."""

SUMS, RUN_SUMS = "SHA256SUMS", "run.sha256"


def write_evidence(run: Run, checks: Sequence[GateCheck], out: Path) -> tuple[Path, ...]:
    """Writes the evidence of ``run`` into the folder ``out``; each file whole or not at all, the hashes last.

    Args:
        run: an audit that came to its end.
        checks: gates that were tried on it.
        out: made if it is not there; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        InputError: the run is unfinished, ``out`` lies in it or is no folder, a file of the run cannot be read, or the
            package that writes a bill of materials is missing.
        OSError: the disk refused.
    """
    check_installed()
    if not run.finished:
        raise InputError(
            f"the run {quoted(run.path)} is unfinished: {run.finished_parts} of {run.parts} parts are there; finish it "
            "with the command that began it"
        )
    _check_outside(run.path, out)
    hashes = _hashes(run.path)
    page = run.path / REPORT
    documents = {
        "junit.xml": junit(run, checks),
        "sarif.json": sarif(run, checks, page),
        "model-card.md": model_card(run),
        "mapping.md": mapping(run),
        "bom.cdx.json": bom(run, _grouped(hashes)),
        RUN_SUMS: _sums(hashes),
    }
    for name, content in documents.items():
        write_whole(out / name, content)
    write_json(out / "results.json", results(run))
    written = tuple(sorted([*documents, "results.json"]))
    write_whole(out / SUMS, _sums({name: _sha256(out / name) for name in written}))
    return tuple(out / name for name in (*written, SUMS))


def _check_outside(run: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{quoted(out)} is a file; give a folder for the evidence")
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(
            f"{quoted(out)} lies in the run {quoted(run)}, whose files the evidence has the hashes of; give a folder "
            "outside it"
        )


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in ``folder`` but hidden ones, by its path within it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            found[inside.as_posix()] = _sha256(path)
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open_regular_file(path) as file:
            while block := file.read(2**20):
                digest.update(block)
    except InputError as error:
        raise InputError(f"{quoted(path)} cannot be read: {error}; put it back, or run the audit again") from error
    return digest.hexdigest()


def _grouped(hashes: Mapping[str, str]) -> dict[str, str]:
    """``hashes`` with one for all artifacts together: that of their lines in the list of hashes."""
    below = {name: digest for name, digest in hashes.items() if name.startswith(f"{ARTIFACTS}/")}
    others = {name: digest for name, digest in hashes.items() if name not in below}
    return others | ({f"{ARTIFACTS}/": hashlib.sha256(_sums(below)).hexdigest()} if below else {})


def _sums(hashes: Mapping[str, str]) -> bytes:
    """Lines that `sha256sum -c` checks, names with line breaks written as it writes them."""
    return b"".join(_line(name, digest) for name, digest in hashes.items())


def _line(name: str, digest: str) -> bytes:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}\n".encode("utf-8", "surrogateescape")
