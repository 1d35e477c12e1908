"""Values of options, and gates."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random

import click

from fuzz.case import Case, Ended, Originals
from fuzz.kinds.originals import ENTRIES, FAST, resume
from support.toy_photos import MODEL_OPTIONS
from underfire.auditing.gates import GATE_METRICS
from underfire.cli import cli

_NUMBERS = (
    "0", "1", "2", "-1", "1.5", "8/255", "1/0", "0/0", "1/1e9", "1e3", "1e-9", "1e999", "1e-999", "1e99999999",
    "1e-99999999", "-1e99999999/3", "nan", "inf", "-inf",
    "0x10", "1_000", "١", "½", "", " ", "1 ", "+1", "--1", "9" * 30, "9" * 5000, "9223372036854775807",
    "9223372036854775808", "18446744073709551616",
    "300/255", "0.0039", "1/255", "1,2", "1,2,3", "0,0,0", "nan,1,1", "1x1", "0x0", "32", "32x32", "1e1x2", "10**9",
    "True", "None", "\x1b[31m", "é", "%d", "1;2",
)  # fmt: skip
_WORDS = (
    "random", "next", "given", "all", "cam", "grad", "cam,cam", "cam,,grad", ",", "CAM", "mask", "rts", "pgd",
    "adv2", "pgd,pgd", "square", "stadv", "quick", "paper", "authors", "standard", "linf", "l2", "flow",
    "cpu", "cuda", "cuda:99", "meta", "mps", "xla", "cpu:5", "1/4", "4/1", "0/1", "-1/2", "2/2", "1/0", "a/b",
    "class 1", "nowhere", ".", "/", "/dev/zero", "", "\n", "x" * 9000, "a:b", "os:system", "os:getcwd", "json:loads",
    "::", ":", "a.b.c:d",
    "torchvision:", "timm:", "torchvision:../x", "./x.py:f", "[1]", "{}", "\udcff", "\0",
)  # fmt: skip
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("plan",), ("plan",), ("explain",), ("attack",), ("study", "gap"), ("study", "bound"), ("study", "transfer"),
    ("study", "frontier"),
    ("detect", "fit"), ("detect", "score"), ("train", "rts"), ("report",), ("attacks",), ("models",), ("certify",),
    ("merge",), ("evidence",), ("benchmark",), ("benchmark", "table"),
)  # fmt: skip
_OF_RUNS = frozenset({"study", "report", "merge", "evidence", "benchmark"})
_WITHOUT_MODEL = frozenset({"report", "attacks", "models", "merge", "evidence", "benchmark"})
_FEW: Mapping[str, tuple[str, ...]] = {
    "plan": FAST,
    "attack": ("--steps", "1"),
    "study": ("--limit", "2"),
    "certify": ("--interpreters", "cam", "--samples", "20", "--out", "out"),
    "merge": ("--out", "out"),
    "evidence": ("--out", "out"),
    "benchmark": ("--out", "out.html"),
}
"""What is given before the odd values, so that a command has all it needs, and little to do."""

_COSTLY = frozenset({"--input-size", "--resize", "--epochs", "--samples", "--engine", "--model", "--help", "-h"})
"""Options whose odd values are taken at their word, and cost what they say; --model names code."""


def options(draw: Random, home: Path, originals: Originals) -> Case:
    """A command with odd values of its own options."""
    path = draw.choice(_COMMANDS)
    command = _command(path)
    chosen: list[str] = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        own = [
            parameter
            for parameter in command.params
            if isinstance(parameter, click.Option) and not _COSTLY & set(parameter.opts)
        ]
        value = draw.choice(draw.choice((_NUMBERS, _WORDS))).replace("\0", "")
        option = draw.choice(own) if own else None
        if option is not None and option.name == "out" and value == "/":
            value = "."  # whoever may write there would
        if option is not None:
            chosen += (
                [option.opts[0]]
                if option.is_flag
                else draw.choice(([option.opts[0], value], [f"{option.opts[0]}={value}"]))
            )
    arguments = _arguments(path, home, originals)
    if draw.random() < 0.1:
        arguments = [draw.choice((*_NUMBERS, *_WORDS)).replace("\0", "")]
    model = [] if path[0] in _WITHOUT_MODEL else MODEL_OPTIONS
    few = _FEW.get(path[0], ())
    codes = (0, 1, 2) if path == ("evidence",) else (0, 2)  # 1: of a gate
    given = (*path, *arguments, *model, *few, *chosen)
    return Case(f"{' '.join(path)} {' '.join(chosen)}"[:200], (given,), codes=codes)


def _arguments(path: tuple[str, ...], home: Path, originals: Originals) -> list[str]:
    """What the command works on: a photo, a copy of the audit, or what others of its kind read."""
    if path == ("benchmark", "table"):
        return [str(entry) for entry in sorted((originals.path / ENTRIES).iterdir())]
    if path == ("detect", "score"):
        return [str(originals.detector), str(originals.photo)]
    if path[0] not in _OF_RUNS:
        return [str(originals.photo)]
    shutil.copytree(originals.run, home / "run")
    return ["run"]


def _command(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    if isinstance(command, click.Group):  # of benchmark: its entries, when a run is named at once
        _, found, _ = command.resolve_command(click.Context(command), ["run"])
        assert found is not None
        command = found
    return command


_METRICS = ("x", "", "photos", "iou_50", "asr_8bit", "__class__", "ASR", "l1.mean")
_SIGNS = (">", "<", ">=", "<=", "==", "!=", "=", "=>", "", " > ", ">>", "in")
_OPPOSITE = {">": "<=", "<": ">=", ">=": "<", "<=": ">"}


def gate(draw: Random, home: Path, originals: Originals) -> Case:
    """A gate on the finished audit, and its opposite: of one that is a gate, the two cannot both pass."""
    metric = draw.choice(draw.choice((_METRICS, GATE_METRICS, GATE_METRICS)))
    sign = draw.choice(draw.choice((_SIGNS, tuple(_OPPOSITE))))
    number = draw.choice((*_NUMBERS, "0.5", "0.1", "0.9", "1", "0", "0.999999"))
    shutil.copytree(originals.run, home / "run")
    audit = resume(originals, "run")
    texts = [f"{metric}{sign}{number}", f"{metric}{_OPPOSITE.get(sign, sign)}{number}"]

    def wrong(ended: tuple[Ended, ...]) -> str | None:
        if ended[0].code != ended[1].code and 2 in (ended[0].code, ended[1].code):
            return "a gate is refused, and its opposite is not"
        if sign in _OPPOSITE and ended[0].code == ended[1].code == 0:
            return "a gate and its opposite pass"
        told = all(("Gate failed: " in end.complained) == (end.code == 1) for end in ended)
        return None if told else "exit code and sentences differ"

    return Case(json.dumps(texts), tuple((*audit, f"--fail-if={text}") for text in texts), wrong, (0, 1, 2))
