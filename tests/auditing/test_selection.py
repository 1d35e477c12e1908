"""Which interpreters an audit has that names none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support.layouts import token_net
from support.toy_photos import found, rows_of, toy_classifier, toy_plan, write_photos
from underfire import ADV2
from underfire.auditing.plan import PASSES, Preset
from underfire.auditing.run import open_run
from underfire.auditing.runner import run_audit
from underfire.auditing.selection import select_interpreters
from underfire.choices import EVERY
from underfire.errors import InputError
from underfire.interpreters import MASK, RTS, MaskFit, MaskingNetwork
from underfire.models.classifier import Classifier

OF_TOKENS = ["rollout", "attentionrelevance"]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return toy_classifier()


def write_weights(path: Path, seed: int = 0) -> str:
    subject = toy_classifier()
    MaskingNetwork.untrained(subject, seed=seed).save(path, subject)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_weights(tmp_path_factory.mktemp("weights") / "rts.safetensors")


def test_what_a_preset_has_with_weights(classifier: Classifier, weights: str) -> None:
    cheap = ("grad", "ig", "cam")
    presets: tuple[Preset, ...] = ("quick", "standard", "paper")
    chosen = {p: select_interpreters(None, classifier, preset=p, rts=weights) for p in presets}
    assert {p: one.interpreters for p, one in chosen.items()} == {
        "quick": (*cheap, "rts"), "standard": (*cheap, "mask", "rts"), "paper": (*cheap, "mask", "rts")
    }  # fmt: skip
    (reason,) = chosen["quick"].left_out
    assert reason.startswith("mask (each of its maps takes 150 passes")
    assert not chosen["paper"].left_out


@pytest.mark.parametrize("preset", list(PASSES))
def test_what_is_left_out_is_told_with_its_reason(preset: Preset, classifier: Classifier) -> None:
    selection = select_interpreters(None, classifier, preset=preset)
    told = {reason.split()[0] for reason in selection.left_out}
    assert told | set(selection.interpreters) == {"grad", "ig", "cam", "mask", "rts"}
    assert not told & set(selection.interpreters)
    why = "has no schedule" if preset == "authors" else "underfire train rts"
    assert any(reason.startswith("rts (") and why in reason for reason in selection.left_out)


def test_cam_is_left_out_where_no_linear_layer_reads_pooled_features() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    headless = Classifier(net, input_size=32, name="headless")
    selection = select_interpreters(None, headless, preset="quick")
    assert selection.interpreters == ("grad", "ig")
    assert any(reason.startswith("cam (CAM needs global average pooling") for reason in selection.left_out)
    assert select_interpreters(("cam",), headless, preset="quick").interpreters == ("cam",)  # for the audit to refuse


def test_weights_that_come_with_the_package_will_do(
    classifier: Classifier, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("underfire.interpreters.rts.shipped", lambda: iter([Path(weights)]))
    assert select_interpreters(None, classifier, preset="quick").interpreters == ("grad", "ig", "cam", "rts")


def test_a_search_of_many_maps_leaves_out_what_is_fitted(classifier: Classifier, weights: str) -> None:
    selection = select_interpreters(None, classifier, preset="paper", attacks=("pgd", "square"), rts=weights)
    assert selection.interpreters == ("grad", "ig", "cam", "rts")
    assert selection.left_out[0].startswith("mask (the attack 'square' would take 150 passes for each")


def test_all_is_everything_that_suits(classifier: Classifier, weights: str) -> None:
    backwards = ("inputxgradient", "smoothgrad", "guidedbackprop", "lrp")
    masked = ("occlusion", "rise", "kernelshap", "lime")
    kin = ("gradcamplusplus", "hirescam", "layercam", "eigencam")
    everything = ("grad", "ig", "cam", "gradcam", *kin, *backwards, *masked, "mask", "rts")
    assert select_interpreters((EVERY,), classifier, preset="quick", rts=weights).interpreters == everything
    without = select_interpreters((EVERY,), classifier, preset="quick")
    assert without.interpreters == everything[:-1]
    assert [reason.split()[0] for reason in without.left_out] == [*OF_TOKENS, "attnlrp", "rts"]
    by_authors = select_interpreters((EVERY,), classifier, preset="authors")
    assert by_authors.interpreters == ("grad", "ig", "cam", "gradcam")


def test_all_leaves_out_what_has_no_time_in_a_preset(classifier: Classifier) -> None:
    slow = ["rise", "kernelshap", "lime"]
    presets: dict[Preset, list[str]] = {
        "quick": [*OF_TOKENS, "attnlrp", *slow, "rts"],
        "standard": [*OF_TOKENS, "attnlrp", "rts"],
    }
    for preset, left_out in presets.items():
        chosen = select_interpreters((EVERY,), classifier, preset=preset, attacks=("pgd", "adv2"))
        assert [reason.split()[0] for reason in chosen.left_out] == left_out
    assert select_interpreters(("rise",), classifier, preset="quick", attacks=("adv2",)).interpreters == ("rise",)


def test_all_stands_alone(classifier: Classifier) -> None:
    with pytest.raises(InputError, match="'all,cam' name others beside 'all'"):
        select_interpreters(("all", "cam"), classifier, preset="quick")


def test_names_are_taken_as_they_are(classifier: Classifier) -> None:
    selection = select_interpreters(("mask", "cam"), classifier, preset="quick")
    assert (selection.interpreters, selection.left_out) == (("mask", "cam"), ())


@pytest.mark.parametrize(
    ("named", "preset", "file", "quoted"),
    [
        (("cam",), "quick", None, r"rts\.safetensors' are given for rts, and it is not among cam"),
        (None, "authors", None, "not among grad, ig, cam"),
        (None, "quick", "no-such.safetensors", r"'no-such\.safetensors' is no file"),
        ((EVERY,), "quick", "no-such.safetensors", r"'no-such\.safetensors' is no file"),
    ],
)
def test_weights_that_serve_nothing_are_refused(
    named: Any, preset: Preset, file: str | None, quoted: str, classifier: Classifier, weights: str
) -> None:
    with pytest.raises(InputError, match=quoted):
        select_interpreters(named, classifier, preset=preset, rts=file or weights)


def test_the_weights_decide_whether_a_run_is_the_same_and_not_their_place(tmp_path: Path) -> None:
    photos, out = found(write_photos(tmp_path / "photos", count=1)), tmp_path / "run"
    files = [write_weights(tmp_path / name, seed) for name, seed in (("a.safetensors", 0), ("b.safetensors", 0))]
    plan = replace(toy_plan(), interpreters=("rts",), steps=2, rts=files[0], left_out=("mask (slow)",))
    run_audit(plan, photos, toy_classifier(), out)
    config = open_run(out).facts.config
    assert (config["rts"], config["left_out"], len(str(config["rts_sha256"]))) == (files[0], ("mask (slow)",), 64)
    run_audit(replace(plan, rts=files[1], left_out=()), photos, toy_classifier(), out)
    with pytest.raises(InputError, match="is a run with rts_sha256"):
        run_audit(replace(plan, rts=write_weights(tmp_path / "c.safetensors", 1)), photos, toy_classifier(), out)
    with pytest.raises(InputError, match="RTS needs a masking network trained for"):
        run_audit(replace(plan, rts=None), photos, toy_classifier(), tmp_path / "other")


@pytest.mark.parametrize("perturbation", ["linf", "l2", "flow"])
def test_masks_and_masking_networks_are_audited_like_the_others(
    perturbation: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []

    class Short(MASK):
        """MASK by a short fit, whose maps are counted."""

        def __init__(self, classifier: Classifier) -> None:
            super().__init__(classifier, fit=MaskFit(steps=4))

        def compute(self, x: Any, y: Any, keys: Any) -> Any:
            fits.append(len(x))
            return super().compute(x, y, keys)

    monkeypatch.setattr("underfire.interpreters.ALL", (Short, RTS))
    names = ("mask", "rts")
    attacks: Any = ("pgd", "adv2", "stadv")
    plan = replace(toy_plan(), interpreters=names, attacks=attacks, steps=6, perturbation=perturbation, rts=weights)
    run_audit(plan, found(write_photos(tmp_path / "photos", count=2)), toy_classifier(), tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert {(row.condition, row.interpreter) for row in rows} == {(str(c), n) for c in plan.conditions for n in names}
    # A fit for the benign photos; for each other condition one of the image as computed and one of it as saved, but
    # none where nothing changed by saving. An attack on MASK fits its finalists, which are saved as they are.
    conditions = len(plan.conditions)
    finalists = [len(ADV2(Short(toy_classifier()), steps=6).setting.finals)] * sum(
        condition.source == "mask" for condition in plan.conditions
    )
    most = 1 + 2 * (conditions - 1) + sum(n - 1 for n in finalists)
    whole = 1 + len(finalists)  # of noise and of the finalists, where these need no displaced pixels
    floor = 2  # of each photo the map itself and that of random weights, for what the map shows of the model
    assert 2 * (most - whole + floor) <= sum(fits) <= 2 * (most + floor)


class _Prototypes(nn.Module):
    """Classes by distance from prototypes: torch has no second derivative of ``cdist``."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh())
        self.prototypes = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(self.net(x).mean(dim=(2, 3)), self.prototypes)


class TestWhatCannotBeAttacked:
    def test_it_is_left_out_with_the_reason_where_attacks_follow_gradients(self) -> None:
        classifier = Classifier(_Prototypes(), input_size=16)
        chosen = select_interpreters((EVERY,), classifier, preset="quick", attacks=("pgd", "adv2"))
        assert {"grad", "ig"} <= set(chosen.interpreters)
        weighted = {"gradcam", "gradcamplusplus", "hirescam", "layercam"}
        once = {reason.split()[0] for reason in chosen.left_out if "has no gradient" in reason}
        assert once == {*weighted, "guidedbackprop"}
        for attacks in ((), ("pgd",)):  # maps alone
            chosen = select_interpreters((EVERY,), classifier, preset="quick", attacks=attacks)
            assert {"gradcam", "guidedbackprop"} <= set(chosen.interpreters)

    def test_it_is_refused_where_it_is_named(self) -> None:
        classifier = Classifier(_Prototypes(), input_size=16, name="once")
        with pytest.raises(InputError, match="gradcam cannot be attacked on 'once': the model has no gradient: taking"):
            select_interpreters(("grad", "gradcam"), classifier, preset="quick", attacks=("adv2",))

    def test_nothing_is_left_of_a_model_without_gradients(self) -> None:
        class Detached(_Prototypes):
            def forward(self, x: Tensor) -> Tensor:
                with torch.no_grad():
                    return super().forward(x)

        classifier = Classifier(Detached(), input_size=16, name="none")
        with pytest.raises(InputError, match="no interpreter suits 'none': the model has no gradient"):
            select_interpreters(None, classifier, preset="quick", attacks=("adv2",))

    def test_fused_attention_is_no_obstacle(self) -> None:
        classifier = Classifier(token_net(), input_size=32)
        chosen = select_interpreters((EVERY,), classifier, preset="quick", attacks=("adv2",))
        assert {"grad", "ig", "gradcam", "guidedbackprop", "smoothgrad", "inputxgradient"} <= set(chosen.interpreters)
        assert {"layercam", "eigencam", "rollout", "attentionrelevance"} <= set(chosen.interpreters)
