"""Files of fitted detectors. What a detector says is its writer's word, so no verdict of one is silent."""

import json
import os
import struct
from pathlib import Path
from random import Random

from fuzz.case import Case, Originals
from fuzz.mutate import as_json, spoilt_bytes, spoilt_json
from support.toy_photos import MODEL_OPTIONS


def detector(draw: Random, home: Path, originals: Originals) -> Case:
    """A spoilt detector, which scores a photo."""
    data = originals.detector.read_bytes()
    path = home / "detector.safetensors"
    how = draw.choice(("about", "about", "about", "header", "bytes", "numbers", "pipe"))
    if how == "pipe":
        os.mkfifo(path)
    else:
        if how == "bytes":
            data, told = spoilt_bytes(draw, data)
            how = f"bytes: {told}"
        else:
            data, how = _spoilt(draw, data, how)
        path.write_bytes(data)
    return Case(how, (("detect", "score", path.name, str(originals.photo), *MODEL_OPTIONS, "--out", "scores"),))


def _spoilt(draw: Random, data: bytes, how: str) -> tuple[bytes, str]:
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    told = ""
    if how == "about":
        key = next(iter(header["__metadata__"]))
        about, told = spoilt_json(draw, json.loads(header["__metadata__"][key]))
        header["__metadata__"][key] = as_json(about).decode()
    elif how == "header":
        header, told = spoilt_json(draw, header)
    else:
        place = draw.randrange(len(rest) // 8) * 8
        value = draw.choice((float("nan"), float("inf"), -1.0, 0.0, 1e300, -1e300))
        rest = (
            struct.pack("<d", value) * (len(rest) // 8)
            if draw.random() < 0.3
            else rest[:place] + struct.pack("<d", value) + rest[place + 8 :]
        )
    written = as_json(header)
    return struct.pack("<Q", len(written)) + written + rest, f"{how}: {told}"
