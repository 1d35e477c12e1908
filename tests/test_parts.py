"""A third party's interpreter and attack enter by each of three doors, and the tables by one line."""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from support.toy_photos import MODEL_OPTIONS, found, toy_classifier, toy_plan, write_photos
from support.toys import images
from underfire import ADV2, CAM, InputError, interpreters
from underfire.attacks import registry
from underfire.attacks.registry import ATTACKS, AttackEntry, entry_of
from underfire.auditing.attackers import attack_of
from underfire.auditing.condition import Condition, attack_title
from underfire.auditing.names import load_parts, make_interpreters
from underfire.auditing.plan import AuditPlan
from underfire.auditing.rows import read_rows
from underfire.auditing.runner import run_audit
from underfire.cli import cli
from underfire.images import save_png
from underfire.interpreters.registry import INTERPRETERS, interpreter_title
from underfire.plugins import Parts
from underfire.studies.study import read

THIRD_PARTY = Path(__file__).parent / "support" / "thirdparty"
PACKAGE = "acme_maps"
DOORS = ("module", "file", "entry point")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported, and what was loaded of it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(THIRD_PARTY))
    for parts in (INTERPRETERS, ATTACKS):
        monkeypatch.setattr(parts, "_loaded", {})
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if PACKAGE in name or name.startswith("_underfire_"):
            del sys.modules[name]


def points(monkeypatch: pytest.MonkeyPatch, **groups: dict[str, str]) -> None:
    """Entry points of an installed package, by group's last word: {name: value}."""
    known = {f"underfire.{group}": values for group, values in groups.items()}

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint(name, value, group) for name, value in known.get(group, {}).items()]

    monkeypatch.setattr(metadata, "entry_points", entry_points)


def specs(door: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What a user types for the interpreter and for the attack."""
    if door == "entry point":
        points(monkeypatch, interpreters={"acme": f"{PACKAGE}:Acme"}, attacks={"acme_push": f"{PACKAGE}:AcmePush"})
        return "acme", "acme_push"
    module = PACKAGE if door == "module" else str(THIRD_PARTY / PACKAGE / "__init__.py")
    return f"{module}:Acme", f"{module}:AcmePush"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


@pytest.mark.parametrize("door", DOORS)
def test_an_audit_takes_both(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter, attack = specs(door, monkeypatch)
    load_parts([interpreter], [attack])
    plan = AuditPlan(
        model=toy_plan().model, interpreters=("grad", interpreter), attacks=(attack, "pgd"), steps=6, batch_size=2
    )
    run_audit(plan, found(write_photos(tmp_path / "photos")), toy_classifier(), tmp_path / "run")
    rows = read_rows(tmp_path / "run")
    assert list(dict.fromkeys(str(row.condition) for row in rows)) == [
        "none", "noise", "pgd", "acme_push-grad", "acme_push-acme"
    ]  # fmt: skip
    assert {row.interpreter for row in rows} == {"grad", "acme"}


@pytest.mark.parametrize("door", DOORS)
def test_commands_take_both(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter, attack = specs(door, monkeypatch)
    monkeypatch.setattr("underfire.cli.explain.load_model", lambda *_: toy_classifier())
    monkeypatch.setattr("underfire.cli.attack.load_model", lambda *_: toy_classifier())
    photo = str(next(iter(write_photos(tmp_path / "photos").glob("*.png"))))
    made = run("explain", photo, "--interpreters", f"cam,{interpreter}", "--out", str(tmp_path / "maps"))
    assert made.exit_code == 0, made.output
    assert len(list((tmp_path / "maps").glob("*-acme*.png"))) > 0
    for target in ("0", "1"):  # one of them may be its class
        made = run(
            "attack", photo, "--interpreter", interpreter, "--attack", attack, "--target-class", target, "--steps", "6",
            "--out", str(tmp_path / "attack"),
        )  # fmt: skip
        if made.exit_code == 0:
            break
    assert made.exit_code == 0, made.output
    assert '"acme_push"' in (tmp_path / "attack" / "result.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("door", DOORS)
def test_they_are_in_the_report_in_a_study_and_in_a_detector(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter, attack = specs(door, monkeypatch)
    photos, out, clean = write_photos(tmp_path / "photos"), tmp_path / "run", tmp_path / "clean"
    named = (*MODEL_OPTIONS, "--interpreters", f"cam,{interpreter}")
    made = run("audit", str(photos), *named, "--attacks", f"pgd,{attack}", "--steps", "4", "--out", str(out))
    assert made.exit_code == 0, made.output
    planned = run("plan", str(photos), *named, "--attacks", f"pgd,{attack}", "--steps", "4", "--out", str(out))
    assert "acme_push-acme" in planned.output
    studied = run("study", "transfer", str(out))
    assert studied.exit_code == 0, studied.output
    (found_study,) = read(out / "studies")
    assert "acme" in found_study.study.table["map"].to_pylist()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Acme push on Acme map" in page
    assert 'id="study-transfer"' in page
    clean.mkdir()
    for index, picture in enumerate(images(12, 32, seed=9)):
        save_png(picture, clean / f"{index:02}.png")
    fit = ("detect", "fit", str(clean), *named, "--fpr", "0.2", "--out", str(tmp_path / "detector.safetensors"))
    fitted = run(*fit)
    assert fitted.exit_code == 0, fitted.output
    scored = run("detect", "score", str(tmp_path / "detector.safetensors"), str(photos / "photo-0.png"), *MODEL_OPTIONS)
    assert scored.exit_code in (0, 1), scored.output


def test_listings_show_those_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    specs("entry point", monkeypatch)
    assert "what Acme sees" in run("interpreters").output
    assert "as Acme pushes them" in run("attacks").output
    assert (interpreter_title("acme"), attack_title("acme_push")) == ("Acme map", "Acme push")
    assert (interpreter_title("gone"), attack_title("gone")) == ("GONE", "gone")


def test_a_broken_package_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, interpreters={"gone": "acme_gone:Acme", "other": f"{PACKAGE}:Acme"})
    shown = run("interpreters")
    assert shown.exit_code == 0
    assert "gradcam" in shown.output
    assert "'gone' (entry point 'acme_gone:Acme') cannot be loaded" in " ".join(shown.output.split())
    with pytest.raises(InputError, match="has the name 'acme'; entry point and class must agree"):
        INTERPRETERS.load("other")


@pytest.mark.parametrize(
    ("parts", "spec", "sentence"),
    [
        (INTERPRETERS, "acme_gone:Acme", "interpreter 'acme_gone:Acme': importing 'acme_gone' fails with"),
        (INTERPRETERS, "nowhere/acme.py:Acme", "importing 'nowhere/acme.py' fails with FileNotFoundError"),
        (INTERPRETERS, f"{PACKAGE}:Gone", f"the module '{PACKAGE}' has no 'Gone'"),
        (INTERPRETERS, f"{PACKAGE}:NOTHING", f"'{PACKAGE}:NOTHING' is a int; name a class derived from Interpreter"),
        (INTERPRETERS, f"{PACKAGE}:AcmePush", "is the class AcmePush; name a class derived from Interpreter"),
        (INTERPRETERS, f"{PACKAGE}:Twice", f"'{PACKAGE}:Twice' has the name 'cam' of a built-in one"),
        (INTERPRETERS, f"{PACKAGE}:Unnameable", "has the name 'acme map'; give it one of small letters"),
        (INTERPRETERS, "camm", "interpreter 'camm' is unknown; did you mean 'cam'?"),
        (ATTACKS, f"{PACKAGE}:Acme", "is the class Acme; name a class derived from JointAttack"),
        (ATTACKS, "adv3", "attack 'adv3' is unknown; did you mean 'adv2'?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(parts: Parts[object], spec: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")) as refusal:
        parts.load(spec)
    assert spec in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_a_plan_says_is_not_imported() -> None:
    plan = AuditPlan(interpreters=(f"{PACKAGE}:Acme",), attacks=(f"{PACKAGE}:AcmePush",))
    assert PACKAGE not in sys.modules
    with pytest.raises(InputError, match="is unknown"):
        assert plan.conditions
    assert PACKAGE not in sys.modules
    load_parts(plan.interpreters, plan.attacks)
    assert [str(c) for c in plan.conditions] == ["none", "noise", "acme_push-acme"]


def test_instances_go_before_names() -> None:
    classifier = toy_classifier()
    own = CAM(classifier)
    own.name = "mine"
    made = make_interpreters(("grad", "mine"), classifier, given={"mine": own})
    assert made[1] is own
    attack = ADV2(own, steps=3)
    found_attack = attack_of(AuditPlan(), Condition.on("adv2", "mine"), classifier, made, given={"adv2-mine": attack})
    assert found_attack is attack


def vars_of(module: object, name: str) -> object:
    """What ``from module import name`` would give."""
    return getattr(module, name)


def test_an_interpreter_is_its_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(CAM):
        name = "toy"
        summary = "a toy's map"

    monkeypatch.setattr(interpreters, "ALL", (*interpreters.ALL, Toy))
    assert "a toy's map" in run("interpreters").output
    assert INTERPRETERS.find("toy") is Toy
    assert interpreter_title("toy") == "TOY"
    assert AuditPlan(interpreters=("toy",), attacks=("adv2",)).conditions[-1] == Condition.on("adv2", "toy")
    (made,) = make_interpreters(("toy",), toy_classifier())
    assert isinstance(made, Toy)
    import underfire

    assert vars_of(underfire, "Toy") is Toy
    with pytest.raises(AttributeError, match="has no attribute 'Toys'"):
        vars_of(underfire, "Toys")


def test_an_attack_is_its_file_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(ADV2):
        name = "toy"
        title = "Toy"
        summary = "a toy's attack"
        perturbations = ("l2",)
        unit = "queries"
        per_pass = 3

    monkeypatch.setattr(registry, "BUILT_IN", (*registry.BUILT_IN, AttackEntry(Toy)))
    shown = run("attacks").output
    assert "a toy's attack" in shown
    assert "450 queries" in shown
    assert attack_title("toy") == "Toy"
    with pytest.raises(InputError, match="the attack 'toy' is for the perturbation 'l2', not 'linf'"):
        AuditPlan(attacks=("toy",))
    plan = AuditPlan(attacks=("toy", "pgd"), interpreters=("cam",), perturbation="l2")
    assert [str(c) for c in plan.conditions[2:]] == ["pgd", "toy-cam"]
    classifier = toy_classifier()
    attack = attack_of(plan, plan.conditions[-1], classifier, [CAM(classifier)])
    assert isinstance(attack, Toy)
    assert entry_of("toy").title == "Toy"
