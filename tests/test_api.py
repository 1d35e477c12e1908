"""The headline job from Python: parts of one's own take part, and the run is what the command line makes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import underfire as uf
from support.toy_photos import MISCLASSIFIED, found, rows_of, toy_classifier, toy_plan, write_photos
from underfire.api import rebuild
from underfire.auditing.given import GivenParts, named_attacks
from underfire.auditing.runner import run_audit
from underfire.interpreters import CAM, GRAD
from underfire.studies.study import Claim, Study, Verdict, save


class Own(CAM):
    """A third party's: CAM under a name of its own."""

    name = "own"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


def audited(photos: Path, out: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {"interpreters": ["grad", "cam"], "steps": 16, "batch_size": 2, "targets": "given"}
    return uf.audit(toy_classifier(), photos, out=out, **settings | changes)


def test_it_makes_the_rows_of_the_plan(photos: Path, tmp_path: Path) -> None:
    run = audited(photos, tmp_path / "run", targets=toy_plan().targets)
    run_audit(toy_plan(), found(photos), toy_classifier(), tmp_path / "planned")
    assert rows_of(run.path) == rows_of(tmp_path / "planned")
    assert (run.finished, run.skipped, run.parts) == (True, 1, 3)
    assert run.rows.num_rows == len(run.records)
    assert run.summary.photos.attacked == 4
    assert run.claims == ()
    assert run.report().read_text(encoding="utf-8").startswith("<!")
    assert uf.load_run(str(run.path)).records == run.records


def test_instances_take_part_like_names(photos: Path, tmp_path: Path) -> None:
    classifier = toy_classifier()
    own, grad = Own(classifier), GRAD(classifier)
    attack = uf.ADV2([own, grad], steps=8)
    run = uf.audit(
        classifier, [photos], interpreters=[own, grad, "cam"], attacks=["pgd", attack], steps=8, out=tmp_path / "run"
    )
    conditions = {str(row.condition) for row in run.records if row.image_id != MISCLASSIFIED}
    assert conditions == {"none", "noise", "pgd", "adv2-own+grad"}
    assert {row.interpreter for row in run.records} == {"own", "grad", "cam"}
    assert run.plan.attacks == ("pgd", "adv2-own+grad")
    theirs = {row.columns()["l1"] for row in run.records if row.interpreter == "own"}
    assert theirs == {row.columns()["l1"] for row in run.records if row.interpreter == "cam"}
    assert "own" in run.report().read_text(encoding="utf-8").lower()
    with pytest.raises(uf.InputError, match="given"):  # a resumed run has the same parts, with the same settings
        uf.audit(classifier, [photos], interpreters=[own, GRAD(classifier), "cam"], attacks=["pgd"], steps=8,
                 out=tmp_path / "run")  # fmt: skip


def test_instances_for_something_else_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(uf.InputError, match="attack 'pdg' is unknown; did you mean 'pgd'"):
        audited(photos, tmp_path / "run", attacks=["pdg"])
    assert not (tmp_path / "run").exists()
    with pytest.raises(uf.InputError, match="explains another classifier"):
        audited(photos, tmp_path / "run", interpreters=[GRAD(toy_classifier())])
    classifier = toy_classifier()
    with pytest.raises(uf.InputError, match="'grad', which is not among the interpreters"):
        named_attacks([uf.ADV2(GRAD(classifier))], ["cam"], classifier)
    unsendable = GRAD(classifier)
    unsendable.handle = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(uf.InputError, match="'grad' cannot be sent to the processes of the engine 'ray'"):
        GivenParts({"grad": unsendable}).check_portable()


def test_claims_of_studies_are_those_that_were_saved(photos: Path, tmp_path: Path) -> None:
    run = audited(photos, tmp_path / "run", attacks=["pgd"], steps=1, interpreters=["cam"])
    claim = Claim("all", "It holds.", Verdict.HOLDS, {}, 4)
    save(Study("transfer", "T", "C", (claim,), run.rows, "<svg/>", "w"), run.path / "studies", command="c", seed=0)
    assert uf.load_run(run.path).claims == (claim,)
    assert rebuild(run.path).page.is_file()


def test_importing_the_package_waits_for_no_table_and_no_plot() -> None:
    heavy = "{'matplotlib', 'jinja2', 'pyarrow'}"
    code = f"import sys, underfire; print({heavy} & set(sys.modules), callable(underfire.audit))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["set()", "True"]


def test_no_submodule_takes_the_place_of_a_public_function() -> None:
    program = """
import importlib, pkgutil, underfire as uf
assert callable(uf.audit) and callable(uf.load_run) and callable(uf.certify)
for module in pkgutil.iter_modules(uf.__path__):
    if module.name != "__main__":
        importlib.import_module(f"underfire.{module.name}")
assert callable(uf.audit) and callable(uf.load_run) and callable(uf.certify)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
