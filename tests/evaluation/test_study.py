"""The study of defences on the toy: what is measured, that it resumes, and what is refused."""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from support.made_runs import planned_otherwise, with_rows
from support.stopping import Stop, stopping_after
from support.toy_photos import MISCLASSIFIED, found, toy_classifier, toy_plan
from support.toys import images
from underfire import metrics
from underfire.attacks import ADV2
from underfire.attacks.control import MINIMAX, NORMALIZED
from underfire.attacks.perturbations import Linf
from underfire.auditing.condition import NONE, Condition
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import AuditPlan
from underfire.auditing.run import Run, read_run
from underfire.auditing.runner import run_audit
from underfire.defenses import EnsembleDetector
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.views import default_views, described
from underfire.errors import InputError
from underfire.evaluation.detectors import named_sets
from underfire.evaluation.options import DefenseOptions
from underfire.evaluation.signals import SignalExtractor
from underfire.evaluation.study import defense_study
from underfire.images import PhotoSet, find_photos, read_png, save_png
from underfire.images.dataset import Photos, read_sources
from underfire.seeding import content_key
from underfire.studies.study import Study

CLEAN = 12
RATE = 0.2  # few photos are enough for it


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("audited") / "run"
    run_audit(toy_plan(), found(photos), toy_classifier(), out)
    return read_run(out)


@pytest.fixture(scope="module")
def clean(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Photos:
    """Clean photos, with one of the run's and one of their own twice."""
    folder = tmp_path_factory.mktemp("clean")
    for index, picture in enumerate(images(CLEAN, 32, seed=9)):
        save_png(picture, folder / f"{index:02}.png")
    save_png(read_png(folder / "00.png"), folder / "twice.png")
    save_png(read_png(run.picture(run.photos[0], NONE)), folder / "of-the-run.png")
    return read(find_photos([folder], class_names=toy_classifier().class_names))


def read(photos: PhotoSet) -> Photos:
    sources, _ = read_sources(photos.photos, toy_classifier())
    return Photos(sources, toy_classifier())


def study(run: Run, clean: Photos, work: Path, **more: Any) -> Study:
    how = {name: more.pop(name) for name in ("limit", "note") if name in more}
    settings: dict[str, Any] = {"fpr": RATE, "sets": (("cam",), ("cam", "grad"))}
    options = DefenseOptions(**(settings | more))
    return defense_study(run, clean, toy_classifier(), options, work=work, passes=60, **how)


@pytest.fixture(scope="module")
def whole(run: Run, clean: Photos, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    work = tmp_path_factory.mktemp("whole")
    return work, study(run, clean, work)


def rows(made: Study, **wanted: Any) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = made.table.to_pylist()
    return [line for line in lines if all(line[name] == value for name, value in wanted.items())]


@pytest.mark.parametrize("names", [("cam",), ("grad", "cam")])
def test_what_is_told_is_what_a_detector_says_of_the_saved_images(
    run: Run, clean: Photos, whole: tuple[Path, Study], names: tuple[str, ...]
) -> None:
    """The detector, fitted by itself and asked about the files, finds the same."""
    key = "+".join(names)
    x = torch.stack([clean[row] for row, source in enumerate(clean.sources) if source.image_id[0].isdigit()])
    assert len(x) == CLEAN
    detector = EnsembleDetector(make_interpreters(names, toy_classifier()), fpr=RATE).fit(x)
    photos = [photo for photo in run.photos if photo.excluded is None]
    benign = {p.image_id: read_png(run.picture(p, NONE)) for p in photos}
    scores = {name: float(detector.score_samples(image[None])) for name, image in benign.items()}
    (summary,) = rows(whole[1], kind="set", detector=key)
    assert summary["false_positives"] == sum(score < detector.threshold_ for score in scores.values()) / 4
    assert (summary["clean"], summary["passes"]) == (CLEAN, detector.signals.passes_per_image)
    for under in ("pgd", "adv2-grad", "adv2-cam"):
        reached = {r.image_id for r in run.records if str(r.condition) == under and r.success_8bit}
        theirs = [
            float(detector.score_samples(read_png(run.picture(p, Condition.parse(under)))[None]))
            for p in photos
            if p.image_id in reached
        ]
        (line,) = rows(whole[1], kind="attack", detector=key, under=under)
        assert (line["n"], line["failed"]) == (4, 4 - len(reached))
        wins = [float(scores[b] > a) + 0.5 * (scores[b] == a) for b in reached for a in theirs]
        assert line["auroc"] == pytest.approx(sum(wins) / len(wins))
        assert line["flagged"] == sum(a < detector.threshold_ for a in theirs) / len(theirs)
    (folder,) = (whole[0] / "adaptive").glob(f"{key}-*")
    evaded = 0
    for photo in photos:
        image = read_png(folder / f"{photo.key}.png")
        assert metrics.linf(image[None], benign[photo.image_id][None]).item() <= 8 / 255 + 1e-6
        kept = json.loads((folder / f"{photo.key}.json").read_text(encoding="utf-8"))
        probabilities = toy_classifier().probabilities(image[None])[0]
        assert kept["reached"] == (int(probabilities.argmax()) == photo.target)
        assert kept["confidence"] == pytest.approx(float(probabilities[photo.target]), abs=1e-6)
        assert 0 < kept["passes"] <= 60
        evaded += kept["reached"] and float(detector.score_samples(image[None])) >= detector.threshold_
    assert summary["evaded"] == evaded / 4


def test_nothing_is_shown_without_its_adaptive_attack(whole: tuple[Path, Study]) -> None:
    shown = {line["detector"] for line in rows(whole[1])}
    assert shown == {"cam", "grad+cam", "mean-map", "squeezing"}
    for detector in shown:
        (summary,) = [line for line in rows(whole[1], detector=detector) if line["kind"] in ("set", "baseline")]
        assert summary["under"] == "adaptive"
        assert summary["evaded"] is not None
    assert whole[1].words.startswith("Against an adaptive attacker, ")
    assert "evaded on" in whole[1].figure
    assert {line["under"] for line in rows(whole[1], kind="harmless", detector="cam")} == {
        "noise", "jpeg-75", "jpeg-50", "gaussian-6", "crop-90", "brightness-0.8", "brightness-1.2"
    }  # fmt: skip
    parts = rows(whole[1], kind="ablation")
    assert {line["detector"] for line in parts} == {"grad+cam"}
    assert len({line["signals"] for line in parts}) == 8


def test_photos_of_the_run_are_not_fitted_on(
    run: Run, clean: Photos, whole: tuple[Path, Study], tmp_path: Path
) -> None:
    said: list[str] = []
    assert study(run, clean, whole[0], note=said.append) == whole[1]
    assert said == [
        "Left out clean photo 'of-the-run.png': it shows the same as the run's photo 'photo-0.png'",
        "Left out clean photo 'twice.png': it shows the same as the clean photo '00.png'",
        f"2 clean photos left out, {CLEAN} are fitted on",
    ]
    assert "they show the same as others: 2 clean photos." in whole[1].words
    kept = {path.stem for path in (whole[0] / "values").rglob("*.json")}
    assert kept >= {content_key(clean[row]) for row in range(CLEAN)}
    assert MISCLASSIFIED not in {photo.image_id for photo in run.photos if photo.excluded is None}


def test_an_interrupted_study_goes_on_to_the_same_numbers(
    run: Run, clean: Photos, whole: tuple[Path, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lines in (4, 7, 7):  # the first three are about clean photos left out
        with pytest.raises(Stop):
            study(run, clean, tmp_path, note=stopping_after(lines))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert len(before) > CLEAN
    assert study(run, clean, tmp_path) == whole[1]
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())

    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(SignalExtractor, "measure", nothing)
    monkeypatch.setattr(AdaptiveADV2, "run", nothing)
    assert study(run, clean, tmp_path) == whole[1]


def test_what_was_attacked_serves_studies_of_other_sets(
    run: Run, clean: Photos, whole: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was attacked before")

    (before,) = rows(whole[1], kind="set", detector="grad+cam")
    monkeypatch.setattr(AdaptiveADV2, "run", nothing)
    (after,) = rows(study(run, clean, whole[0], sets=[("grad", "cam")]), kind="set", detector="grad+cam")
    assert after["evaded"] == before["evaded"]
    assert after["auroc"] == before["auroc"]


def test_what_version_0_1_cached_has_the_same_names(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    """Its versions were 2 of signals and of the adaptive attack; the oblivious one has another since."""

    def identity(*facts: object) -> str:
        images = sorted((r.image_sha256, str(r.condition), r.target, r.confidence_8bit) for r in run.records)
        return hashlib.sha256(repr((images, run.facts.created, *facts)).encode()).hexdigest()[:16]

    classifier, seed, budget = toy_classifier(), run.plan.seed, Linf(8 / 255)
    views = [described(view) for view in default_views(classifier.input_size, seed)]
    assert identity(2, classifier.fingerprint(), views, seed) == next((whole[0] / "values").iterdir()).name
    both = make_interpreters(("grad", "cam"), classifier)
    settings = EnsembleDetector(both).settings()["interpreters"]
    oblivious = identity(ADV2.version, classifier.fingerprint(), settings, budget, 60, seed)
    assert (whole[0] / "blind" / f"grad+cam-{oblivious}").is_dir()
    detector = EnsembleDetector(both, fpr=RATE).fit(torch.stack([clean[row] for row in range(CLEAN)]))
    fit = (detector.settings(), detector.fpr, detector.seed, detector.threshold_, detector.density_.centre.tolist())
    adaptive = identity(2, classifier.fingerprint(), fit, 60, "even", budget, seed)
    assert (whole[0] / "adaptive" / f"grad+cam-{adaptive}").is_dir()


def test_a_lost_picture_is_made_again(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    folder = next((whole[0] / "adaptive").glob("cam-*"))
    lost = sorted(folder.glob("*.png"))[1]
    before = lost.read_bytes()
    lost.unlink()
    assert study(run, clean, whole[0]) == whole[1]
    assert lost.read_bytes() == before
    lost.write_bytes(b"no picture")
    with pytest.raises(InputError, match=re.escape(str(lost))):
        study(run, clean, whole[0])
    lost.unlink()
    assert study(run, clean, whole[0]) == whole[1]


@pytest.mark.slow
def test_another_largest_set_has_a_mean_map_of_its_own(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    sets = [("grad", "cam", "inputxgradient")]
    after = study(run, clean, whole[0], sets=sets)
    fresh = study(run, clean, whole[0].parent / "fresh", sets=sets)
    assert rows(after, detector="mean-map") == rows(fresh, detector="mean-map")
    assert rows(after, kind="attack", detector="mean-map") != rows(whole[1], kind="attack", detector="mean-map")


def test_the_first_photos_are_found_again_among_all(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    before = set(whole[0].rglob("*"))
    made = study(run, clean, whole[0], limit=2)
    assert set(whole[0].rglob("*")) == before
    assert {line["n"] for line in rows(made, kind="set")} == {2}
    assert "Left out beyond the limit: 2 photos." in made.words


def test_of_several_weightings_the_one_that_evades_best_counts(
    run: Run, clean: Photos, whole: tuple[Path, Study]
) -> None:
    single = {
        weighting.name: rows(
            study(run, clean, whole[0], weighting=(weighting.name,), sets=[("grad", "cam")]), kind="set"
        )[0]
        for weighting in (NORMALIZED, MINIMAX)
    }
    made = study(run, clean, whole[0], weighting=(NORMALIZED.name, MINIMAX.name))
    (both,) = rows(made, kind="set", detector="grad+cam")
    assert both["evaded"] >= max(line["evaded"] for line in single.values())
    assert both["reached"] >= max(line["reached"] for line in single.values())
    alone = {line["sharing"]: line for line in rows(made, kind="sharing")}
    assert {name: line["evaded"] for name, line in alone.items()} == {n: line["evaded"] for n, line in single.items()}
    assert {(line["detector"], line["under"]) for line in alone.values()} == {
        ("grad+cam", "adaptive, normalized sharing"), ("grad+cam", "adaptive, minimax sharing")
    }  # fmt: skip
    assert rows(made, kind="set", detector="cam")[0]["sharing"] is None
    assert both["sharing"] == "normalized+minimax"
    assert both["attack_passes"] == sum(line["attack_passes"] for line in alone.values())
    # A single map shares a step with none.
    study(run, clean, whole[0], weighting=(MINIMAX.name,), sets=[("cam",)])
    assert len(list((whole[0] / "adaptive").glob("cam-*"))) == 1


def test_other_attacks_stand_beside_the_runs(
    run: Run, clean: Photos, whole: tuple[Path, Study], photos: Path, tmp_path: Path
) -> None:
    run_audit(replace(toy_plan(), eps=2 / 255), found(photos), toy_classifier(), tmp_path / "weak")
    made = study(run, clean, whole[0], extra_attacks=(("weak", tmp_path / "weak"),))
    assert len(rows(made, kind="attack", detector="cam", under="weak: pgd")) == 1
    assert rows(made, kind="set") == rows(whole[1], kind="set")  # the summary is of the run's own attacks


def test_what_the_attacker_needs_is_told_of_every_set(
    run: Run, clean: Photos, whole: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study(run, clean, whole[0], eps_grid=(2 / 255, 8 / 255), passes_grid=(60, 40))
    assert rows(made, kind="set") == rows(whole[1], kind="set")
    unders = ["adaptive, 2/255, 60 passes", "adaptive, 8/255, 60 passes", "adaptive, 8/255, 40 passes"]
    told = rows(made, kind="resources")
    assert [(line["under"], line["detector"]) for line in told] == [
        (under, detector) for under in unders for detector in ("cam", "grad+cam")
    ]
    for line in told:
        (given,) = rows(made, kind="set", detector=line["detector"])
        assert 0 < line["attack_passes"] <= line["most_passes"]
        if line["under"] == unders[1]:
            assert (line["evaded"], line["auroc"]) == (given["evaded"], given["auroc"])
    (benign,) = [run.picture(p, NONE) for p in run.photos if p.image_id == "photo-0.png"]
    nearest = min(
        metrics.linf(read_png(found)[None], read_png(benign)[None]).item()
        for found in (whole[0] / "adaptive").rglob(f"{benign.parent.name}.png")
    )
    assert 0 < nearest <= 2 / 255 + 1e-6
    assert "evaded, by the attacker's budget" in made.figure
    assert "evaded, by the attacker's budget" not in whole[1].figure


def test_a_search_by_the_score_goes_on_from_the_attack(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    before = set((whole[0] / "adaptive").iterdir())
    made = study(run, clean, whole[0], score_search=200)
    assert rows(made, kind="set") == rows(whole[1], kind="set")
    assert len(rows(made, kind="search")) == 2
    photos = [photo for photo in run.photos if photo.excluded is None]

    interpreters = make_interpreters(("grad", "cam"), toy_classifier())
    detector = EnsembleDetector(interpreters, fpr=RATE).fit(torch.stack([clean[row] for row in range(CLEAN)]))
    (folder,) = (found for found in set((whole[0] / "adaptive").glob("grad+cam-*")) - before)
    searched = [photo for photo in photos if (folder / f"{photo.key}.png").is_file()]
    assert 0 < len(searched) < len(photos)

    def scores(where: Path) -> list[float]:
        pictures = torch.stack([read_png(where / f"{photo.key}.png") for photo in searched])
        benign = torch.stack([read_png(run.picture(photo, NONE)) for photo in searched])
        assert Linf(8 / 255).contains(benign, pictures).all()
        return detector.score_samples(pictures).tolist()

    earlier = [scores(old) for old in before if old.name.startswith("grad+cam-")]
    assert any(
        max(old) < detector.threshold_ and all(b >= a for a, b in zip(old, scores(folder), strict=True))
        for old in earlier
    )
    assert scores(folder) not in earlier
    for line in rows(made, kind="search"):
        (given,) = rows(made, kind="set", detector=line["detector"])
        assert line["under"] == "adaptive, then a search of 200 passes"
        assert line["most_passes"] == given["most_passes"] + 200
        assert line["evaded"] >= given["evaded"]
        assert line["reached"] == given["reached"]
        flagged = given["flagged"] * given["reached"]  # share of the photos that are searched on
        assert flagged * 26 <= line["attack_passes"] - given["attack_passes"] <= flagged * 200
    assert study(run, clean, whole[0], score_search=200) == made
    both = study(run, clean, whole[0], score_search=200, weighting=(NORMALIZED.name, MINIMAX.name))
    for line in rows(both, kind="search"):
        (given,) = rows(both, kind="set", detector=line["detector"])
        assert line["evaded"] >= given["evaded"]
    flow = planned_otherwise(run, perturbation="flow", eps=None)
    with pytest.raises(InputError, match="not 'flow'; leave --score-search out"):
        study(flow, clean, whole[0], score_search=200)


def test_an_oblivious_attack_on_all_maps(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    """It is ADV² on the maps of the largest set, and every detector is shown its images as saved."""
    (folder,) = (whole[0] / "blind").glob("grad+cam-*")
    interpreters = make_interpreters(("grad", "cam"), toy_classifier())
    photos = [photo for photo in run.photos if photo.excluded is None]
    x = torch.stack([read_png(run.picture(p, NONE)) for p in photos])
    targets = torch.tensor([p.target for p in photos])
    labels = torch.tensor([p.label for p in photos])
    made = ADV2(interpreters, passes=60)(x, targets, label=labels, keys=[p.image_id for p in photos]).x_adv
    saved = torch.stack([read_png(folder / f"{p.key}.png") for p in photos])
    assert torch.equal(saved, Linf(8 / 255).rounded(x, made).float() / 255)
    assert {line["detector"] for line in rows(whole[1], under="adv2-grad+cam", kind="attack")} == {
        "cam", "grad+cam", "mean-map", "squeezing"
    }  # fmt: skip
    (line,) = rows(whole[1], under="adv2-grad+cam", kind="attack", detector="cam")
    reached = toy_classifier()(saved).argmax(dim=1) == targets
    assert line["failed"] == 4 - int(reached.sum())


def test_another_set_of_the_same_interpreters_measures_only_what_is_its_own(
    run: Run, clean: Photos, whole: tuple[Path, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: set[str] = set()
    measure = SignalExtractor.measure

    def watching(self: SignalExtractor, x: torch.Tensor, known: Collection[str]) -> list[dict[str, float]]:
        found = measure(self, x, known)
        measured.update(name for line in found for name in line)
        return found

    monkeypatch.setattr(SignalExtractor, "measure", watching)
    monkeypatch.setattr(AdaptiveADV2, "run", lambda *_, **__: pytest.fail("it was attacked before"))
    with pytest.raises(pytest.fail.Exception):
        study(run, clean, whole[0], sets=[("cam",), ("cam", "grad"), ("grad",)])
    assert measured
    assert all(name.startswith("grad: ") for name in measured)


def test_a_budget_leaves_expensive_sets_out_of_the_choice(run: Run, clean: Photos, whole: tuple[Path, Study]) -> None:
    made = study(run, clean, whole[0], budget=15)
    verdicts = {line["detector"]: line["verdict"] for line in rows(made, kind="set")}
    assert verdicts == {"cam": "best", "grad+cam": "over the budget"}
    assert {line["detector"] for line in rows(made, kind="ablation")} == {"cam"}


def test_what_cannot_be_is_refused_before_anything_is_measured(run: Run, clean: Photos, tmp_path: Path) -> None:
    bare = with_rows(run, (row for row in run.records if row.attack in ("none", "noise")))
    for changed, message in (
        ({"fpr": 0.05}, "12 clean photos can be used, too few for a false-positive rate of 0.05; give at least 37"),
        ({"fpr": 1.5}, "is not in"),
        ({"budget": 3}, "a budget of 3 passes is below what any set costs; the cheapest, cam, takes 13"),
        ({"sets": [("cam", "cam")]}, "names 'cam' twice"),
        ({"sets": [("kam",)]}, "interpreter 'kam' is unknown"),
        ({"sets": [("rts",)]}, "rts"),
        ({"extra_attacks": (("x", tmp_path),)}, "has no attacked image"),
        ({"passes_grid": (60, 12)}, "passes is 12; one step of an attack on a detector with cam"),
        ({"score_search": 20}, "passes is 20; a search takes two queries of 13"),
        ({"eps_grid": (0.0,)}, r"eps 0 is not in \(0, 1\]"),
    ):
        with pytest.raises(InputError, match=message):
            study(run, clean, tmp_path / "work", **changed)
    with pytest.raises(InputError, match="has no attack"):
        study(bare, clean, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_sets_have_one_order_and_are_all_subsets_by_default() -> None:
    plan = AuditPlan(interpreters=("grad", "mask", "cam"))
    assert named_sets(plan, []) == (("grad",), ("cam",), ("grad", "cam"))
    assert named_sets(plan, [("cam", "grad"), ("grad", "cam"), ("ig", "cam")]) == (("grad", "cam"), ("cam", "ig"))
    with pytest.raises(InputError, match="no interpreter but mask"):
        named_sets(AuditPlan(interpreters=("mask",)), [])
