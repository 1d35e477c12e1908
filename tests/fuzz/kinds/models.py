"""Files that a model is made with: names of classes, and weights in every wrapping."""

import io
import json
import os
import pickle
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fuzz.case import Case, Originals
from fuzz.mutate import TEXTS, as_json, odd, spoilt_bytes, spoilt_json
from support.toy_photos import MODEL_OPTIONS
from support.toys import relu_net

_EXPLAIN = ("--interpreters", "cam", "--out", "maps")


def class_names(draw: Random, home: Path, originals: Originals) -> Case:
    """A file for ``--class-names``, or something in its place."""
    path, names = home / "names", [f"class {index}" for index in range(10)]
    forms: tuple[Any, ...] = (
        names, dict(enumerate(names)), {name: index for index, name in enumerate(names)},
        {"id2label": dict(enumerate(names))},
        {str(index): [f"n{index}", name] for index, name in enumerate(names)}, {"class_to_idx": {n: i for i,
        n in enumerate(names)}},
    )  # fmt: skip
    how = draw.choice(("json", "json", "json", "text", "text", "bytes", "other"))
    if how == "other":
        how = draw.choice(_IN_PLACE)(path)
    elif how == "json":
        content, how = spoilt_json(draw, draw.choice(forms))
        path.write_bytes(as_json(content))
    else:
        for _ in range(draw.randint(1, 3)):
            names[draw.randrange(len(names))] = draw.choice((*TEXTS, "", "class 1", "\udcff"))
        if draw.random() < 0.3:
            names = names * draw.choice((0, 2, 10_000))
        data = draw.choice(("\n", "\r\n", "\u2028", "\0")).join(names).encode("utf-8", "surrogatepass")
        path.write_bytes(spoilt_bytes(draw, data)[0] if how == "bytes" and data else data)
    explain = ("explain", str(originals.photo), *MODEL_OPTIONS, "--class-names", path.name, *_EXPLAIN)
    return Case(f"names: {how}", (explain,))


def _pipe(path: Path) -> str:
    os.mkfifo(path)
    return "pipe"


def _link_to(target: str) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        path.symlink_to(target)
        return f"link to {target}"

    return make


def _folder(path: Path) -> str:
    path.mkdir()
    return "folder"


def _huge(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(2**40)
    return "sparse"


_IN_PLACE = (
    _pipe,
    _folder,
    _huge,
    _link_to("/dev/zero"),
    _link_to("/proc/self/environ"),
    _link_to("names"),
    _link_to("/dev/tty"),
)


# --- weights ---


class Reduced:
    """Is pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def checkpoint(draw: Random, home: Path, originals: Originals) -> Case:
    """Weights for the toy: spoilt bytes, pickles, zips, headers, tensors."""
    how = draw.choice(list(_WEIGHTS))
    data = _WEIGHTS[how](draw)
    if draw.random() < 0.15:
        data, how = spoilt_bytes(draw, data)[0], f"{how}, bytes"
    path = home / f"weights{draw.choice(('.pt', '.pth', '.bin', ''))}"
    if how.startswith("safetensors"):
        path = home / "weights.safetensors"
    path.write_bytes(data)
    explain = ("explain", str(originals.photo), *MODEL_OPTIONS, "--checkpoint", path.name, *_EXPLAIN)
    return Case(how, (explain,))


def _state() -> dict[str, Tensor]:
    return dict(relu_net().state_dict())


def _saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def _odd_tensor(draw: Random, value: Tensor) -> Any:
    with torch.no_grad():
        return draw.choice(_TENSORS)(value.detach().clone())


_TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    lambda t: t * torch.nan, lambda t: t * torch.inf, lambda t: t * 1e30, lambda t: t * 0, lambda t: t.double(),
    lambda t: t.half(), lambda t: t.bfloat16(),
    lambda t: t.to(torch.complex64), lambda t: t.int(), lambda t: t.bool(), lambda t: t[None],
    lambda t: t.reshape(-1), lambda t: t[..., :0],
    lambda t: t.to("meta"), lambda t: t.to_sparse() if t.ndim else t,
    lambda t: torch.nested.nested_tensor([t.reshape(-1), t.reshape(-1)]),
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8), lambda t: torch.empty(()).expand(t.shape),
    lambda t: torch.nn.Parameter(t.float()),
    lambda t: t.tolist(), lambda t: t.numpy(), lambda t: None, lambda t: "text",
    lambda t: torch.zeros(()).expand(10**5, 10**4),
    lambda t: t.to(torch.float8_e4m3fn), lambda t: t.flatten().as_strided(t.shape, (0,) * t.ndim),
    lambda t: torch.conj(t.to(torch.complex64)),
)  # fmt: skip


def _tensors(draw: Random) -> bytes:
    state: dict[Any, Any] = _state()
    for key in draw.sample(list(state), draw.randint(1, 2)):
        state[key] = _odd_tensor(draw, state[key])
    return _wrapped(draw, state)


def _keys(draw: Random) -> bytes:
    state: dict[Any, Any] = _state()
    for _ in range(draw.randint(1, 3)):
        key = draw.choice(list(state))
        how = draw.choice(("out", "name", "more", "key"))
        value = state[key]
        if how in ("out", "name"):
            del state[key]
        if how == "name":
            state[draw.choice((f"module.{key}", key.upper(), f"_orig_mod.{key}", "", "\x1b[31m", "x" * 70_000))] = value
        elif how == "more":
            state[draw.choice(TEXTS)] = value
        elif how == "key":
            state[draw.choice((0, None, 1.5, b"x", ("a",), True))] = value
    return _wrapped(draw, state)


def _wrapped(draw: Random, state: Any) -> bytes:
    for _ in range(draw.choice((0, 0, 1, 2, 60))):
        key = draw.choice(("state_dict", "model", "ema", "x", "module", "optimizer"))
        state = draw.choice(({key: state}, OrderedDict({key: state, "epoch": odd(draw)}), {key: state, "other": state}))
    how = draw.choice(("", "", "legacy", "list", "namespace", "itself"))
    if how == "list":
        state = [state]
    elif how == "namespace":
        state = {"model": state, "args": Namespace(lr=0.1, call=draw.choice((odd(draw), Namespace())))}
    elif how == "itself" and isinstance(state, dict):
        state["me"] = state
    return _saved(state, _use_new_zipfile_serialization=how != "legacy")


def _code(draw: Random) -> bytes:
    touch = "open('ran','w')"
    payload = draw.choice((
        Reduced(os.system, ("touch ran",)), Reduced(eval, (touch,)), Reduced(exec, (touch,)),
        Reduced(torch.load, ("x",)), Reduced(__import__, ("evil",)), Reduced(Namespace, ()), Reduced(print, ("x",)),
        Reduced(OrderedDict, ([],)),
        Reduced(torch.ones, (10**6, 10**6)), Reduced(torch.empty, (10**6, 10**6)), Reduced(torch.device, ("cuda",)),
        relu_net(), torch.float32, Path("x"), 1j, {1, 2}, b"x",
        Reduced(torch.Tensor, (10**5, 10**5)), Reduced(torch.Size, ([1],)), Reduced(bytearray, (10**10,)),
        Reduced(OrderedDict, (10**9,)),
    ))  # fmt: skip
    content = draw.choice((payload, {"state_dict": _state(), "x": payload}, [payload]))
    if draw.random() < 0.3:
        return pickle.dumps(content, protocol=draw.choice((0, 2, 4, 5)))
    return _saved(content, _use_new_zipfile_serialization=draw.random() < 0.6)


def _opcodes(draw: Random) -> bytes:
    """A pickle of operations, in a zip or bare."""
    pieces = (
        b"(", b"]", b"}", b")", b"t", b"l", b"d", b"s", b"u", b"a", b"e", b"0", b"1", b"2", b"N", b"K\1",
        b"J\xff\xff\xff\x7f", b"\x8a\xff" + b"\x7f" * 255,
        b"X\4\0\0\0test", b"X\xff\xff\xff\x7f", b"cos\nsystem\n", b"cbuiltins\neval\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n",
        b"cargparse\nNamespace\n", b"ctorch\nFloatStorage\n", b"R", b"b", b"\x81", b"Q", b"q\0", b"h\0",
        b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x85", b"\x86", b"\x87",
        b"P0\n", b"I1\n", b"L" + b"9" * 5000 + b"L\n", b"F1e999\n", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"B\xff\xff\xff\xff",
    )  # fmt: skip
    body = b"".join(draw.choice(pieces) for _ in range(draw.choice((3, 10, 60))))
    repeated = draw.choice(
        (b"", b"", b")\x85" + b"\x85" * 10**6, b"]" * 10**6, b"(" * 10**6, b"}q\0" + b"h\0" * 10**5, b"}q\0h\0h\0h\0s")
    )
    pickled = b"\x80" + draw.choice((b"\2", b"\4", b"\5", b"\xff")) + repeated + body + b"."
    return pickled if draw.random() < 0.3 else _zip(draw, {"archive/data.pkl": pickled})


def _zip(draw: Random, replaced: dict[str, bytes]) -> bytes:
    """A file of torch.save with parts changed, written anew."""
    parts: list[tuple[str, bytes]] = []
    with zipfile.ZipFile(io.BytesIO(_saved(_state()))) as archive:
        parts = [(name, replaced.get(name, archive.read(name))) for name in archive.namelist()]
    for _ in range(draw.choice((0, 0, 1, 2))):
        place = draw.randrange(len(parts))
        name, data = parts[place]
        how = draw.choice(("out", "twice", "name", "data", "long"))
        if how == "out":
            del parts[place]
        elif how == "twice":
            parts.insert(place, (name, data + b"x"))
        elif how == "name":
            parts[place] = (
                draw.choice(
                    (
                        "../../outside/x",
                        "/etc/x",
                        "archive/constants.pkl",
                        "archive/data.pkl",
                        "archive/code/x.py",
                        name.upper(),
                        "\0",
                        "",
                    )
                ),
                data,
            )
        elif how == "data" and data:
            parts[place] = (name, spoilt_bytes(draw, data)[0])
        elif how == "long":
            parts[place] = (name, data + bytes(2 * 10**7))
        if not parts:
            break
    buffer = io.BytesIO()
    packed = draw.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name), data, packed)
    return buffer.getvalue()


def _zips(draw: Random) -> bytes:
    return _zip(draw, {})


def _safetensors(draw: Random) -> bytes:
    state = _state()
    data = safetensors.torch.save(state)
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
    how = draw.choice(("header", "header", "header", "length", "rest", "dtype", "shape"))
    entry = header[draw.choice(list(header))]
    if how == "header":
        header = spoilt_json(draw, header)[0]
    elif how == "dtype":
        entry["dtype"] = draw.choice(
            ("F64", "BF16", "F16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "C64", "x", "I128", "F8_E8M0")
        )
    elif how == "shape":
        entry["shape"] = draw.choice(
            ([], [0], [2**62, 2], [-1], [1] * 70, [2**64], [1.5], list(reversed(entry["shape"])))
        )
    elif how == "rest":
        rest = draw.choice((b"", rest[:-4], rest * 2, bytes(len(rest)), b"\xff" * len(rest)))
    written = as_json(header)
    size = draw.choice((0, 1, len(written) - 1, 2**31, 2**63, 2**64 - 1)) if how == "length" else len(written)
    return struct.pack("<Q", size) + written + rest


_WEIGHTS: dict[str, Callable[[Random], bytes]] = {
    "tensors": _tensors, "keys": _keys, "code": _code, "opcodes": _opcodes, "zip": _zips, "safetensors": _safetensors,
    "safetensors of bytes": lambda draw: spoilt_bytes(draw, safetensors.torch.save(_state()))[0],
    "saved": lambda draw: spoilt_bytes(draw, _saved(_state()))[0],
}  # fmt: skip
