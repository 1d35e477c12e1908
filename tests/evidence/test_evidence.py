"""The evidence of a run: valid by the schemas, right in numbers, honest about what it rests on."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result

import underfire as uf
from support.made_runs import with_rows
from support.schemas import sarif_problems
from support.synthetic_run import Recipe, write_run
from underfire.auditing.condition import Condition
from underfire.auditing.run import Run
from underfire.auditing.summary import Comparison
from underfire.cli import cli
from underfire.diagnostics.map_checks import MapCheck
from underfire.errors import InputError
from underfire.evidence.bom import bom
from underfire.evidence.build import write_evidence
from underfire.evidence.card import model_card
from underfire.evidence.figures import figures
from underfire.evidence.reliability import reliability
from underfire.evidence.results import results

pytest.importorskip("cyclonedx")
HOSTILE = 'x: "y" | <script>\'{%\x00\x1b\ud800 ε😀'


def checks(**changes: Mapping[str, tuple[float, ...]]) -> tuple[MapCheck, ...]:
    """Of CAM and GRAD on five photos, both well unless ``changes`` say something else."""
    well: dict[str, Any] = {"constant": (False,) * 5, "advantage": (0.5, 0.4, 0.6, 0.5, 0.4), "similarity": (0.1,) * 5}
    return tuple(MapCheck(name, **{**well, **changes.get(name, {})}) for name in ("cam", "grad"))


def made(folder: Path, recipe: Recipe | None = None, **facts: Any) -> uf.Run:
    run = uf.load_run(write_run(folder, recipe or Recipe(interpreters=("cam", "grad"), excluded={2: "misclassified"})))
    return replace(run, facts=replace(run.facts, **{"map_checks": checks(), **facts}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> uf.Run:
    return made(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def evidence(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evidence") / "out"
    loaded = uf.load_run(run.path)
    write_evidence(run, loaded.gates(["asr>0.5", "l1>0.5"]), out)
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_all_documents_are_there_and_their_hashes_are_right(evidence: Path, run: Run) -> None:
    names = {path.name for path in evidence.iterdir()}
    assert names == {
        *("junit.xml", "sarif.json", "bom.cdx.json", "model-card.md", "mapping.md", "results.json"),
        *("run.sha256", "SHA256SUMS"),
    }
    lines = [line.split("  ") for line in (evidence / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    assert {name for _, name in lines} == names - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256((evidence / name).read_bytes()).hexdigest() == digest
    told = {line[66:]: line[:64] for line in (evidence / "run.sha256").read_text().splitlines()}
    there = [path for path in run.path.rglob("*") if path.is_file()]
    assert set(told) == {path.relative_to(run.path).as_posix() for path in there}
    for path in there:
        assert told[path.relative_to(run.path).as_posix()] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sarif_problems(read(evidence / "sarif.json")) == []


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the system has no sha256sum")
def test_sha256sum_takes_the_lists(evidence: Path, run: Run) -> None:
    for folder, sums in ((evidence, "SHA256SUMS"), (run.path, (evidence / "run.sha256").resolve())):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", sums], cwd=folder, check=True)


def test_figures_are_those_of_the_summary(run: Run) -> None:
    found = {(f.metric, f.condition, f.interpreter): f.estimate for f in figures(run)}
    assert found["accuracy", "none", None].value == 0.75  # three of four, one misclassified
    assert found["accuracy", "none", None].n == 4
    for name in ("cam", "grad"):
        condition = f"adv2-{name}"
        headline = next(h for h in run.summary.headlines if h.interpreter == name)
        assert found["JSR@0.5", condition, name] == headline.kept
        assert found["within noise", condition, name] == headline.within_noise
        cell = run.summary.cell(headline.condition, name)
        assert cell is not None
        assert found["L1", condition, name] == cell.mean("l1")
        assert found["faithfulness advantage", "none", name].value == pytest.approx(0.48)
    assert {metric for metric, condition, _ in found if condition == "pgd"} == {"ASR"}
    assert found["JSR@0.25 of noise", "adv2-cam", "cam"].value == 1.0  # noise moved the map by 0.05 to 0.06


def test_the_bill_of_materials(evidence: Path, run: Run) -> None:
    content = read(evidence / "bom.cdx.json")
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    model = content["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "gradient-net")
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert len(metrics) == len(figures(run))
    (jsr,) = (m for m in metrics if m["type"] == "JSR@0.5" and m["slice"].startswith("adv2-cam"))
    kept = next(h for h in run.summary.headlines if h.interpreter == "cam").kept
    assert float(jsr["value"]) == kept.value == 1.0
    interval = jsr["confidenceInterval"]
    assert (float(interval["lowerBound"]), float(interval["upperBound"])) == (kept.low, kept.high)
    assert jsr["slice"].endswith("n = 3")
    hashes = {c["name"]: c["hashes"][0] for c in content["components"] if c["type"] == "file"}
    digest = hashlib.sha256((run.path / "run.json").read_bytes()).hexdigest()
    assert hashes["run.json"] == {"alg": "SHA-256", "content": digest}
    assert "artifacts/" in hashes
    assert not any(name.startswith("artifacts/") and name != "artifacts/" for name in hashes)
    packages = {c["name"]: c.get("purl") for c in content["components"] if c["type"] == "library"}
    assert packages == {"python": None, "torch": "pkg:pypi/torch@2.10.0"}


def test_the_same_run_gives_the_same_bytes(evidence: Path, run: Run, tmp_path: Path) -> None:
    loaded = uf.load_run(run.path)
    for path in write_evidence(run, loaded.gates(["asr>0.5", "l1>0.5"]), tmp_path / "again"):
        assert path.read_bytes() == (evidence / path.name).read_bytes(), path.name


def test_the_same_run_has_the_same_bill_but_another_none(run: Run) -> None:
    hashes = {"run.json": "0" * 64}
    first = bom(run, hashes)
    assert bom(run, hashes) == first
    other = json.loads(bom(run, {"run.json": "1" * 64}))
    assert other["serialNumber"] != json.loads(first)["serialNumber"]


def test_the_model_card_is_read_by_yaml_and_by_the_hub(evidence: Path, run: Run) -> None:
    text = (evidence / "model-card.md").read_text(encoding="utf-8")
    _, block, body = text.split("---\n", 2)
    data = yaml.safe_load(block)
    (index,) = data["model-index"]
    metrics = index["results"][0]["metrics"]
    assert len(metrics) == len(figures(run))
    assert [row.split(" | ")[0] for row in body.splitlines() if row.startswith("| JSR@0.5 |")] == ["| JSR@0.5"] * 2
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(text)
    assert card.data.pipeline_tag == "image-classification"
    told = {(r.metric_name, r.metric_value) for r in card.data.eval_results}
    assert ("JSR@0.5 (adv2-cam, map of cam)", 1.0) in told


def test_results_have_a_row_for_each_photo_and_attack(evidence: Path, run: Run) -> None:
    content = read(evidence / "results.json")
    assert content["dataset"]["photos"] == 4
    assert content["dataset"]["attacked"] == 3
    assert content["clean_acc"]["value"] == 0.75
    assert content["interpreters"]["cam"]["jsr"] == {"value": 1.0, "low": pytest.approx(0.438, abs=1e-3), "high": 1.0,
                                                     "n": 3, "k": 3}  # fmt: skip
    rows = content["samples"]
    assert {(row["condition"], row["interpreter"]) for row in rows} == {
        *(("pgd", "cam"), ("pgd", "grad"), ("adv2-cam", "cam"), ("adv2-grad", "grad"))
    }
    assert len(rows) == 3 * 4
    mine = [row for row in rows if row["condition"] == "adv2-cam"]
    kept = sum(row["success"] and row["iou"] >= content["interpreters"]["cam"]["jsr_tau"] for row in mine)
    assert kept == content["interpreters"]["cam"]["jsr"]["k"]
    assert (content["unreliable"], content["why"], content["cautions"]) == (False, [], [])


def test_results_do_not_depend_on_the_order_of_rows_in_a_file(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    for part in (tmp_path / "run" / "rows").iterdir():
        table = pq.read_table(part)
        pq.write_table(table.take(list(range(len(table)))[::-1]), part, write_page_checksum=True)
    turned = uf.load_run(tmp_path / "run")
    assert [row.image_id for row in turned.records] != [row.image_id for row in run.records]
    assert results(replace(turned, facts=run.facts)) == results(run)


@pytest.mark.parametrize(
    ("recipe", "facts", "ids", "unreliable"),
    [
        (Recipe(interpreters=("cam", "grad"), course={"stuck": 0.5}), {}, ["zero_gradients"], True),
        (Recipe(interpreters=("cam", "grad"), faults=("coupled",)), {}, ["coupled"], True),
        (None, {"map_checks": checks(cam={"constant": (True,) * 5})}, ["faithfulness_floor"], True),
        (None, {"map_checks": checks(cam={"advantage": (-0.5, -0.4, -0.6, -0.5, -0.4)})}, ["faithfulness_floor"], True),
        (None, {"map_checks": checks(cam={"similarity": (0.99,) * 5})}, ["faithfulness_floor"], True),
        (None, {"map_checks": checks(cam={"advantage": (-0.5, 0.5, 0.1, 0.0, -0.1)})},
         ["faithfulness_floor_undecided"], False),
        (None, {"map_checks": None}, ["faithfulness_floor_unchecked"] * 2, False),
        (Recipe(interpreters=("cam", "grad"), checked=False), {}, ["model_unchecked"], False),
        (Recipe(interpreters=("cam", "grad"), course={"gap_half": 0.4, "gap_first": 0.5}), {}, ["still_improving"],
         False),
    ],
)  # fmt: skip
def test_the_flag_says_why(
    recipe: Recipe | None, facts: dict[str, Any], ids: list[str], unreliable: bool, tmp_path: Path
) -> None:
    run = made(tmp_path / "run", recipe, **facts)
    found = reliability(run)
    assert [doubt.id for doubt in found.doubts] == ids
    assert found.unreliable is unreliable
    content = results(run)
    assert content["unreliable"] is unreliable
    assert [doubt["id"] for doubt in [*content["why"], *content["cautions"]]] == ids
    assert ("**Unreliable.**" in model_card(run).decode()) is unreliable
    assert all(doubt.text.endswith(".") for doubt in found.doubts)


def test_what_is_wrong_with_one_interpreter_is_not_held_against_another(tmp_path: Path) -> None:
    run = made(tmp_path / "run", map_checks=checks(cam={"constant": (True,) * 5}))
    assert reliability(run, "cam").unreliable
    assert not reliability(run, "grad").unreliable
    told = results(run)["interpreters"]
    assert (told["cam"]["unreliable"], told["grad"]["unreliable"]) == (True, False)
    assert told["cam"]["faithfulness_floor"] == "constant"


def test_gradient_masking_makes_a_run_unreliable(run: Run) -> None:
    blind = Comparison(Condition.parse("adv2-grad"), better=2, reached=3, n=3)
    masked = replace(run)
    masked.__dict__["summary"] = replace(run.summary, comparisons=(blind,))
    assert [doubt.id for doubt in reliability(masked).doubts] == ["gradient_masking"]
    assert reliability(masked, "grad").unreliable
    assert not reliability(masked, "cam").unreliable


def test_hostile_text_stays_text(run: Run, tmp_path: Path) -> None:
    """The bill is validated as it is made; the card's block is what YAML reads back."""
    facts = replace(
        run.facts, created=HOSTILE, command=HOSTILE, device=HOSTILE, platform=HOSTILE,
        versions={HOSTILE: HOSTILE, "torch": HOSTILE, "": "1", "numpy": ""},
        model=replace(run.facts.model, name=HOSTILE),
    )  # fmt: skip
    hostile = replace(run, facts=facts)
    content = json.loads(bom(hostile, {HOSTILE: "0" * 64}))
    assert "\x1b" in content["metadata"]["component"]["name"]  # escaped by JSON
    assert {c["name"] for c in content["components"] if c["type"] == "library"} == {"torch", "numpy"}
    _, block, body = model_card(hostile).decode().split("---\n", 2)
    name = yaml.safe_load(block)["model-index"][0]["name"]
    assert name == HOSTILE.replace("\ud800", "\\ud800")
    assert "<script>" not in body
    assert "{%" in body
    json.dumps(results(hostile), allow_nan=False).encode()


def test_files_of_any_name_are_hashed(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    odd = run.path / "a\\b\nc"
    odd.write_bytes(b"x")
    write_evidence(run, (), tmp_path / "out")
    lines = (tmp_path / "out" / "run.sha256").read_bytes().splitlines()
    digest = hashlib.sha256(b"x").hexdigest()
    assert f"\\{digest}  a\\\\b\\nc".encode() in lines


def test_what_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with pytest.raises(InputError, match="lies in the run"):
        write_evidence(run, (), run.path / "evidence")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match=r"'.*file' is a file"):
        write_evidence(run, (), tmp_path / "file")
    with pytest.raises(InputError, match="unfinished: 0 of 2 parts"):
        write_evidence(with_rows(run, ()), (), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_the_command(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", Recipe(interpreters=("cam",), artifacts=False))
    done = invoke("evidence", path, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [str(tmp_path / "out" / name) for name in (
        "bom.cdx.json", "junit.xml", "mapping.md", "model-card.md", "results.json", "run.sha256", "sarif.json",
        "SHA256SUMS")]  # fmt: skip
    gated = invoke("evidence", path, "--out", tmp_path / "out", "--fail-if", "asr>0.5")
    assert gated.exit_code == 1
    assert "Gate failed: asr>0.5: cam has asr 1" in gated.stderr
    assert re.search(r"<failure", (tmp_path / "out" / "junit.xml").read_text(encoding="utf-8"))
    assert invoke("evidence", tmp_path, "--out", tmp_path / "out").exit_code == 2


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr("underfire.evidence.bom.import_module", missing)
    with pytest.raises(InputError, match=r'pip install "underfire\[evidence\]"'):
        write_evidence(made(tmp_path / "run"), (), tmp_path / "out")
    assert not (tmp_path / "out").exists()
