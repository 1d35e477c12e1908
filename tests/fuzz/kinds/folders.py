"""Folders of all that a file system holds, and manifests."""

import csv
import io
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from fuzz.case import Case, Ended, Originals
from fuzz.mutate import TEXTS, as_json, odd, spoilt_bytes, spoilt_json
from support.toy_photos import MODEL_OPTIONS

_NAMES = (
    "photo.png", "photo.PNG", "photo.jpg", "a b.png", "-x.png", "--out=x.png", "*.png", "?.png", "[a].png", "%s.png",
    "~.png",
    "$HOME.png", "`id`.png", "\x1b]0;owned\x07.png", "new\nline.png", "tab\t.png", "\u202egnp.exe.png", "é.png",
    "e\u0301.png", "ﬁ.png",
    os.fsdecode(b"bad-\xff.png"), "x" * 250 + ".png", "CON.png", "con", "<script>alert(1)</script>.png".replace("/",
    "∕"),
    "{{7*7}}.png", "'quoted'.png", '"double".png', "comma,.png", "run.json", "rows", ".hidden.png", ".underfire",
    "labels.csv",
    "metadata.jsonl", "photo", "thumbs.db", "archive.zip", "0", "1", "tench",
)  # fmt: skip


def folder(draw: Random, home: Path, originals: Originals) -> Case:
    """A folder of some odd entries and, mostly, a photo."""
    photos = home / "photos"
    photos.mkdir()
    if draw.random() < 0.8:
        (photos / "good.png").write_bytes(originals.photo.read_bytes())
    told = []
    for _ in range(draw.randint(1, 8)):
        place = draw.choice(
            (photos, photos, *(path for path in photos.rglob("*") if path.is_dir() and not path.is_symlink()))
        )
        make = draw.choice(_ENTRIES)
        name = draw.choice(_NAMES)
        if not os.path.lexists(place / name):
            make(draw, place / name, originals)
            told.append(f"{make.__name__.strip('_')} {name!r:.40}")
    if draw.random() < 0.5:
        command: tuple[str, ...] = ("explain", "photos", *MODEL_OPTIONS, "--interpreters", "cam", "--out", "maps")
    else:
        # A link that the user names is followed, wherever it leads.
        entries = [f"photos/{path.name}" for path in sorted(photos.iterdir()) if not path.is_symlink()]
        command = (
            "plan",
            *(entries[:4] if draw.random() < 0.3 else ["photos"]),
            *MODEL_OPTIONS,
            "--interpreters",
            "cam",
        )
    return Case(", ".join(told), (command,))


def _photo(draw: Random, path: Path, originals: Originals) -> None:
    path.write_bytes(originals.photo.read_bytes() + bytes(draw.choice((0, 0, 3))))


def _spoilt(draw: Random, path: Path, originals: Originals) -> None:
    path.write_bytes(spoilt_bytes(draw, originals.photo.read_bytes())[0])


def _text(draw: Random, path: Path, _: Originals) -> None:
    path.write_bytes(
        draw.choice((b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n(x) (w) file\n", b"<svg/>", b"PK\3\4", b"\x80\4."))
    )


def _link(draw: Random, path: Path, _: Originals) -> None:
    path.symlink_to(draw.choice(("good.png", "..", ".", path.name, "../../outside/thesis", "../../outside",
    "/dev/zero", "/", "/proc/self/mem", "/proc/self/fd", "nowhere", "../photos/good.png",
    "/etc/passwd")))  # fmt: skip


def _pipe(_: Random, path: Path, __: Originals) -> None:
    os.mkfifo(path)


def _socket(_: Random, path: Path, __: Originals) -> None:
    if len(os.fsencode(path)) < 100:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))


def _device(draw: Random, path: Path, _: Originals) -> None:
    with suppress(PermissionError):  # of those who are not root
        os.mknod(path, draw.choice((0o020666, 0o060666)), os.makedev(1, draw.choice((3, 5, 8))))


def _sub(draw: Random, path: Path, originals: Originals) -> None:
    path.mkdir()
    for index in range(draw.choice((0, 1, 3))):
        (path / f"{index}.png").write_bytes(originals.photo.read_bytes() + bytes(index))


def _deep(draw: Random, path: Path, originals: Originals) -> None:
    with suppress(OSError):
        for _ in range(draw.choice((3, 40, 300))):
            path.mkdir()
            path /= "d"
        path.with_suffix(".png").write_bytes(originals.photo.read_bytes())


def _sparse(draw: Random, path: Path, _: Originals) -> None:
    with path.open("wb") as file:
        file.truncate(draw.choice((2**20, 2**29, 2**31, 2**40)))


def _closed(_: Random, path: Path, originals: Originals) -> None:
    path.write_bytes(originals.photo.read_bytes())
    path.chmod(0)


def _manifest(draw: Random, path: Path, originals: Originals) -> None:
    path = path.with_name(draw.choice(("labels.csv", "manifest.csv", "metadata.jsonl", "labels.jsonl")))
    if not os.path.lexists(path):
        path.write_bytes(_written(draw)[0])


Entry = Callable[[Random, Path, Originals], None]
_ENTRIES: tuple[Entry, ...] = (
    _photo,
    _photo,
    _spoilt,
    _text,
    _link,
    _link,
    _pipe,
    _socket,
    _device,
    _sub,
    _deep,
    _sparse,
    _closed,
    _manifest,
)


# --- manifests ---

_CELLS = (
    "good.png", "./good.png", "sub/../good.png", "../../outside/thesis", "/etc/passwd", "/dev/zero", "pipe.png", ".",
    "..", "nul\0.png",
    "good.png\n", "", " ", "0", "9", "10", "-1", "1.0", "1e3", "NaN", "9" * 5000, "unicorn", "١", "0x1", "\x1b[31m",
    "=cmd()", '"', "x" * 9000,
    *TEXTS,
)  # fmt: skip


def manifest(draw: Random, home: Path, originals: Originals) -> Case:
    """A manifest beside a photo and a pipe."""
    for name in ("good.png", "other.png"):
        (home / name).write_bytes(originals.photo.read_bytes() + name.encode())
    os.mkfifo(home / "pipe.png")
    data, kind, told = _written(draw)
    path = home / f"{draw.choice(('labels', 'manifest', 'metadata', 'other'))}.{kind}"
    path.write_bytes(data)
    named = draw.choice((path.name, path.name, "."))
    targets = ("--targets", draw.choice(("random", "given", "next")))
    plan = ("plan", named, *MODEL_OPTIONS, "--interpreters", "cam", *targets)

    def wrong(ended: tuple[Ended, ...]) -> str | None:
        taken = ended[0].code == 0 and "photo" not in ended[0].said
        return "it is taken, and no photo is" if taken else None

    return Case(told, (plan,), wrong)


def _written(draw: Random) -> tuple[bytes, str, str]:
    kind = draw.choice(("csv", "jsonl"))
    rows: list[dict[str, Any]] = [
        {"file_name": "good.png", "label": 0},
        {"file_name": "other.png", "label": 1, "target": 2},
    ]
    data, told = (_csv if kind == "csv" else _jsonl)(draw, rows)
    how = draw.choice(("", "", "", "bytes", "bom", "utf-16", "latin", "long"))
    if how == "bytes":
        data = spoilt_bytes(draw, data)[0]
    elif how == "bom":
        data = b"\xef\xbb\xbf" + data
    elif how == "utf-16":
        data = data.decode(errors="replace").encode("utf-16")
    elif how == "latin":
        data += "gö.png,0\n".encode("latin-1")
    elif how == "long":
        data += data[data.find(b"\n") + 1 :] * draw.choice((100, 5000))
    return data, kind, f"{kind}: {told} {how}"


def _csv(draw: Random, rows: list[dict[str, Any]]) -> tuple[bytes, str]:
    table: list[list[Any]] = [
        ["file_name", "label", "target"],
        *([r["file_name"], r["label"], r.get("target", "")] for r in rows),
    ]
    told = []
    for _ in range(draw.randint(1, 3)):
        line = draw.choice((0, 1, 1, 2, 2))
        place, how = (
            draw.randrange(len(table[line]) or 1),
            draw.choice(("cell", "cell", "cell", "more", "fewer", "double")),
        )
        if how == "cell" and table[line]:
            table[line][place] = draw.choice(_CELLS)
            told.append(f"{line}:{table[line][place]!r:.30}")
        elif how == "more":
            table[line].append(draw.choice(_CELLS))
        elif how == "fewer":
            del table[line][place:]
        else:
            table.append(table[line])
        told.append(how)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=draw.choice(",,,,;\t"), quoting=draw.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    writer.writerows(table)
    return text.getvalue().encode("utf-8", "surrogatepass"), " ".join(told)


def _jsonl(draw: Random, rows: list[dict[str, Any]]) -> tuple[bytes, str]:
    lines, told = [json.dumps(rows[0]).encode()], []
    for row in rows[1:] * draw.choice((1, 1, 3)):
        content, how = spoilt_json(draw, row)
        if isinstance(content, dict) and draw.random() < 0.5:
            key = draw.choice(("file_name", "label", "target"))
            content[key] = draw.choice((draw.choice(_CELLS), odd(draw)))
            how = f"{key}={str(content[key])[:30]!r}"
        lines.append(as_json(content))
        told.append(how)
    if draw.random() < 0.2:
        lines[0], told = draw.choice((b"not json", b"[1]", b"", b"null")), [*told, "first line"]
    return b"\n".join(lines) + draw.choice((b"\n", b"", b"\r\n")), " ".join(told)
