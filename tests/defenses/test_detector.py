"""Fit, score, explain, save and load of a detector, with signals that are read off the pixels."""

import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
import safetensors.torch
import torch
from torch import Tensor

from support.toys import images, smooth_net
from underfire.defenses import Density, Detector, Signals
from underfire.errors import InputError, NonFiniteError
from underfire.models.classifier import Classifier
from underfire.seeding import content_key

SIZE = 16
KEYS = tuple(f"photo {i}" for i in range(44))


class _Pixels:
    """Mean and spread of the pixels, and the probability of the class predicted."""

    names = ("mean", "spread", "confidence")
    passes_per_image = 1

    def __init__(self, classifier: Classifier, power: float) -> None:
        self.classifier = classifier
        self.power = power
        self.sizes: list[int] = []
        self.seen: list[str] = []

    def measure(self, x: Tensor, keys: Sequence[str] | None = None) -> Tensor:
        assert keys is not None
        self.sizes.append(len(keys))
        self.seen += keys
        rows = [image.double().flatten() ** self.power for image in x]  # sums over a batch depend on its size
        confidence = self.classifier.probabilities(x).amax(dim=1).double()
        pixels = torch.stack([torch.stack([row.mean(), row.std()]) for row in rows])
        return torch.cat([pixels, confidence[:, None]], dim=1)

    def maps(self, x: Tensor, keys: Sequence[str] | None = None) -> Mapping[str, Tensor]:
        return {"red": x[:, 0], "dark": 1 - x.mean(dim=1)}


class _PixelDetector(Detector):
    kind = "pixels"
    batch_size = 7

    def __init__(self, classifier: Classifier, *, power: float = 1.0, fpr: float = 0.05, seed: int = 0) -> None:
        self.pixels = _Pixels(classifier, power)
        super().__init__(self.pixels, fpr=fpr, seed=seed)

    def settings(self) -> dict[str, Any]:
        return {"power": self.pixels.power, "sizes": (SIZE, SIZE)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], classifier: Classifier, *, fpr: float, seed: int) -> Self:
        return cls(classifier, power=settings["power"], fpr=fpr, seed=seed)


class _OtherDetector(_PixelDetector):
    kind = "others"


@pytest.fixture
def photos() -> Tensor:
    return images(len(KEYS), SIZE)


@pytest.fixture
def fitted(smooth_classifier: Classifier, photos: Tensor) -> _PixelDetector:
    return _PixelDetector(smooth_classifier).fit(photos, KEYS)


@pytest.fixture
def drawn(smooth_classifier: Classifier) -> _PixelDetector:
    """Fitted on numbers instead of photos."""
    values = torch.rand(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return _PixelDetector(smooth_classifier).fit_measured(values, KEYS[:40])


def _new(n: int = 9) -> Tensor:
    """Pictures that no detector here was fitted on, the last two of them odd."""
    x = images(n, SIZE, seed=5)
    x[-1], x[-2, :, ::2] = 1.0, 0.0
    return x


def test_pixel_signals_keep_the_contract(smooth_classifier: Classifier) -> None:
    signals: Signals = _Pixels(smooth_classifier, 1.0)
    assert signals.measure(images(2, SIZE), ["a", "b"]).shape == (2, len(signals.names))


def test_scores_follow_the_conventions(fitted: _PixelDetector) -> None:
    x = _new()
    scores, decisions, verdicts = fitted.score_samples(x), fitted.decision_function(x), fitted.predict(x)
    assert scores.dtype == decisions.dtype == torch.float64
    assert verdicts.dtype == torch.int64
    assert scores.shape == decisions.shape == verdicts.shape == (9,)
    assert bool((scores <= 0).all())
    assert torch.equal(decisions, scores - fitted.threshold_)
    assert torch.equal(verdicts, torch.where(scores < fitted.threshold_, -1, 1))
    assert verdicts[-2:].tolist() == [-1, -1]
    assert 1 in verdicts.tolist()


def test_the_lowest_score_that_is_not_flagged_is_the_threshold(fitted: _PixelDetector, photos: Tensor) -> None:
    scores = fitted.score_samples(photos, KEYS)
    assert int((scores == fitted.threshold_).sum()) == 1
    verdict = fitted.predict(photos, KEYS)[scores == fitted.threshold_]
    assert verdict.tolist() == [1]


def test_the_counts_and_the_interval(fitted: _PixelDetector) -> None:
    assert (fitted.n_fit_, fitted.n_calibration_) == (22, 22)
    low, high = fitted.fpr_interval_
    # ⌊0.05 · 23⌋ = 1: Beta(1, 22), in closed form.
    assert low == pytest.approx(1 - 0.975 ** (1 / 22), rel=1e-9)
    assert high == pytest.approx(1 - 0.025 ** (1 / 22), rel=1e-9)


def test_the_halves_share_no_photo(smooth_classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    halves: list[Tensor] = []
    fit, score = Density.fit, Density.score

    def seen_fit(values: Tensor) -> Density:
        halves.append(values)
        return fit(values)

    def seen_score(density: Density, values: Tensor) -> Tensor:
        halves.append(values)
        return score(density, values)

    monkeypatch.setattr(Density, "fit", seen_fit)
    monkeypatch.setattr(Density, "score", seen_score)
    values = torch.rand(41, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    detector = _PixelDetector(smooth_classifier).fit_measured(values, KEYS[:41])
    assert [len(half) for half in halves] == [20, 21]
    assert sorted(torch.cat(halves).tolist()) == sorted(values.tolist())
    assert detector.threshold_ == float(score(detector.density_, halves[1]).min())  # ⌊0.05 · 22⌋ = 1
    other = _PixelDetector(smooth_classifier, seed=1).fit_measured(values, KEYS[:41])
    assert not torch.equal(other.density_.centre, detector.density_.centre)


def test_the_order_of_the_photos_does_not_matter(
    fitted: _PixelDetector, smooth_classifier: Classifier, photos: Tensor
) -> None:
    order = torch.randperm(44, generator=torch.Generator().manual_seed(1))
    again = _PixelDetector(smooth_classifier).fit(photos[order], [KEYS[i] for i in order.tolist()])
    x = _new()
    assert torch.equal(again.score_samples(x), fitted.score_samples(x))
    assert again.threshold_ == fitted.threshold_


def test_photos_without_keys_go_by_their_content(smooth_classifier: Classifier, photos: Tensor) -> None:
    detector = _PixelDetector(smooth_classifier).fit(photos)
    named = _PixelDetector(smooth_classifier).fit(photos, [content_key(photo) for photo in photos])
    assert detector.threshold_ == named.threshold_
    assert detector.pixels.seen == [content_key(photo) for photo in photos]


def test_measuring_before_fitting_is_the_same(
    fitted: _PixelDetector, smooth_classifier: Classifier, photos: Tensor
) -> None:
    values = fitted.pixels.measure(photos, KEYS)
    again = _PixelDetector(smooth_classifier).fit_measured(values, KEYS)
    assert again.threshold_ == fitted.threshold_
    assert torch.equal(again.density_.whitening, fitted.density_.whitening)


def test_split_or_whole_is_the_same_bits(fitted: _PixelDetector) -> None:
    x = _new(16)
    whole = fitted.score_samples(x)
    assert max(fitted.pixels.sizes) == 7
    for sizes in ([1] * 16, [3, 13], [8, 8]):
        assert torch.equal(torch.cat([fitted.score_samples(part) for part in x.split(sizes)]), whole)


def test_no_images_have_no_scores(fitted: _PixelDetector) -> None:
    none = images(0, SIZE)
    assert fitted.score_samples(none).shape == (0,)
    assert fitted.predict(none).dtype == torch.int64
    assert fitted.explain(none) == ()


def test_an_explanation_says_why(fitted: _PixelDetector) -> None:
    x, keys = _new(), [f"new {i}" for i in range(9)]
    found = fitted.explain(x, keys)
    scores, values = fitted.score_samples(x, keys), fitted.pixels.measure(x, keys)
    for i, explanation in enumerate(found):
        assert explanation.key == keys[i]
        assert explanation.score == float(scores[i])
        assert explanation.threshold == fitted.threshold_
        assert explanation.flagged == (int(fitted.predict(x[i : i + 1])) == -1)
        parts = [reason.contribution for reason in explanation.reasons]
        assert parts == sorted(parts, reverse=True)
        assert -0.5 * math.fsum(parts) == pytest.approx(explanation.score, rel=1e-12)
        by_name = {reason.name: reason for reason in explanation.reasons}
        for column, name in enumerate(fitted.pixels.names):
            assert by_name[name].value == float(values[i, column])
            assert by_name[name].usual == float(fitted.density_.centre[column])
            assert by_name[name].spread == float(fitted.density_.spread[column])
        assert torch.equal(explanation.maps["red"], x[i, 0])
        assert set(explanation.maps) == {"red", "dark"}


def test_too_few_photos_are_counted_before_anything_is_measured(smooth_classifier: Classifier, photos: Tensor) -> None:
    detector = _PixelDetector(smooth_classifier)
    with pytest.raises(InputError, match=r"^36 clean photos are too few for .* 0\.05: .* at least 37, or a higher"):
        detector.fit(photos[:36], KEYS[:36])
    assert detector.pixels.sizes == []
    assert detector.fit(photos[:37], KEYS[:37]).n_calibration_ == 19
    with pytest.raises(InputError, match=r"at least 10,"):
        _PixelDetector(smooth_classifier, fpr=0.5).fit(photos[:9], KEYS[:9])


def test_what_cannot_be_fitted_is_refused(smooth_classifier: Classifier, photos: Tensor) -> None:
    detector = _PixelDetector(smooth_classifier)
    with pytest.raises(InputError, match="two clean photos have the key 'photo 3'"):
        detector.fit(photos, (*KEYS[:-1], "photo 3"))
    with pytest.raises(InputError, match="43 keys were given for 44 images"):
        detector.fit(photos, KEYS[:-1])
    with pytest.raises(InputError, match="outside"):
        detector.fit(photos * 3, KEYS)
    with pytest.raises(InputError, match=r"signals \(44, 2\) were given for 44 photos; give \(44, 3\)"):
        detector.fit_measured(torch.zeros(44, 2), KEYS)
    with pytest.raises(InputError, match=r"^a false-positive rate of 5 "):
        _PixelDetector(smooth_classifier, fpr=5)


def test_a_failed_fit_leaves_the_old_one(fitted: _PixelDetector, photos: Tensor) -> None:
    before = fitted.score_samples(_new())
    with pytest.raises(InputError):
        fitted.fit(photos[:5], KEYS[:5])
    assert torch.equal(fitted.score_samples(_new()), before)


@pytest.mark.parametrize("ask", ["score_samples", "decision_function", "predict", "explain"])
def test_an_unfitted_detector_says_so(smooth_classifier: Classifier, ask: str, tmp_path: Path) -> None:
    detector = _PixelDetector(smooth_classifier)
    assert not hasattr(detector, "threshold_")
    with pytest.raises(InputError, match=r"^the pixels detector is not fitted; call fit"):
        getattr(detector, ask)(images(1, SIZE))
    with pytest.raises(InputError, match="not fitted"):
        detector.save(tmp_path / "detector.safetensors")
    assert detector.pixels.sizes == []


def test_a_signal_that_is_no_number_is_named_with_its_image(
    fitted: _PixelDetector, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(x: Tensor, keys: Sequence[str]) -> Tensor:
        values = torch.zeros(len(keys), 3, dtype=torch.float64)
        values[[key == "photo 17" for key in keys], 1] = math.nan
        return values

    monkeypatch.setattr(fitted.pixels, "measure", broken)
    for act in (fitted.fit, fitted.score_samples):
        with pytest.raises(NonFiniteError, match=r"^the signal 'spread' of image 17 ") as caught:
            act(photos, KEYS)
        assert caught.value.index == 17


def test_an_image_that_fails_inside_a_batch_is_counted_from_the_first(
    fitted: _PixelDetector, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(x: Tensor, keys: Sequence[str]) -> Tensor:
        if "photo 17" in keys:
            raise NonFiniteError("the grad map", list(keys).index("photo 17"))
        return torch.zeros(len(keys), 3, dtype=torch.float64)

    monkeypatch.setattr(fitted.pixels, "measure", broken)
    with pytest.raises(NonFiniteError, match=r"^the grad map of image 17 "):
        fitted.score_samples(photos, KEYS)


def test_a_saved_detector_gives_the_same_bits(
    fitted: _PixelDetector, smooth_classifier: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "pixels.safetensors"
    detector = _PixelDetector(smooth_classifier, power=1.7, fpr=0.1, seed=3)
    detector.fit(images(44, SIZE), KEYS).save(path)
    loaded = _PixelDetector.load(str(path), smooth_classifier)
    x = _new()
    assert torch.equal(loaded.score_samples(x), detector.score_samples(x))
    assert torch.equal(loaded.predict(x), detector.predict(x))
    assert loaded.explain(x)[0].reasons == detector.explain(x)[0].reasons
    assert (loaded.fpr, loaded.seed, loaded.pixels.power) == (0.1, 3, 1.7)
    assert loaded.calibration_ == detector.calibration_
    assert loaded.fpr_interval_ == detector.fpr_interval_
    assert (loaded.n_fit_, loaded.density_.shrinkage) == (detector.n_fit_, detector.density_.shrinkage)
    restored = _PixelDetector(smooth_classifier, power=1.7, fpr=0.1, seed=3).restore(path)
    assert torch.equal(restored.score_samples(x), detector.score_samples(x))
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    fitted.save(path)  # replaces
    assert {entry.name for entry in tmp_path.iterdir()} == {"pixels.safetensors", "again.safetensors"}


def test_another_classifier_is_refused_and_both_are_quoted(drawn: _PixelDetector, tmp_path: Path) -> None:
    path = tmp_path / "pixels.safetensors"
    drawn.save(path)
    other = Classifier(smooth_net(seed=1), mean=0.5, std=0.25, input_size=SIZE, name="another toy")
    mine, its = drawn.signals.classifier.fingerprint()[:12], other.fingerprint()[:12]
    wanted = (
        rf"^'.*pixels.safetensors' was fitted for classifier 'smooth toy' \({mine}\), not for 'another toy' \({its}\)"
    )
    with pytest.raises(InputError, match=wanted):
        _PixelDetector.load(path, other)
    with pytest.raises(InputError, match=wanted):
        _PixelDetector(other).restore(path)


def test_another_kind_or_other_settings_are_refused(
    drawn: _PixelDetector, smooth_classifier: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "pixels.safetensors"
    drawn.save(path)
    with pytest.raises(InputError, match=r"holds a detector of kind 'pixels' in format 1, not of kind 'others'"):
        _OtherDetector.load(path, smooth_classifier)
    with pytest.raises(InputError, match=r"with other settings \(\{\"power\": 1.0.*\}\) than .*\"power\": 2.0"):
        _PixelDetector(smooth_classifier, power=2.0).restore(path)
    with pytest.raises(InputError, match=r"with other fpr \(0.05\) than this detector's \(0.1\)"):
        _PixelDetector(smooth_classifier, fpr=0.1).restore(path)


def _rewritten(change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> Callable[[Path], object]:
    """A writer of the same file with other contents."""

    def write(path: Path) -> None:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["underfire"])
        tensors = safetensors.torch.load_file(path)
        change(about, tensors)
        path.write_bytes(safetensors.torch.save(tensors, metadata={"underfire": json.dumps(about)}))

    return write


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _replaced(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


_DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": _cut,
    "empty": _replaced(b""),
    "a pickle": _replaced(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N."),
    "no JSON": _replaced(_header(b'{"__metadata__":{"underfire":"{"}}')),
    "deep JSON": _replaced(_header(b'{"__metadata__":{"underfire":"' + b"[" * 100000 + b'"}}')),
    "weights of something else": _replaced(safetensors.torch.save({"centre": torch.zeros(3)})),
    "JSON of something else": _replaced(safetensors.torch.save({}, metadata={"underfire": '{"taps": []}'})),
    "JSON that is no object": _replaced(safetensors.torch.save({}, metadata={"underfire": "[1]"})),
    "a tensor is missing": _rewritten(lambda _, tensors: tensors.pop("spread")),
    "a tensor is NaN": _rewritten(lambda _, tensors: tensors["centre"].fill_(math.nan)),
    "a spread is zero": _rewritten(lambda _, tensors: tensors["spread"].zero_()),
    "another shape": _rewritten(lambda _, tensors: tensors.update(centre=torch.zeros(2, dtype=torch.float64))),
    "another type": _rewritten(lambda _, tensors: tensors.update(centre=tensors["centre"].float())),
    "a scalar": _rewritten(lambda _, tensors: tensors.update(centre=torch.tensor(1.0, dtype=torch.float64))),
    "fewer signals": _rewritten(
        lambda _, tensors: tensors.update(
            centre=tensors["centre"][:2].clone(),
            spread=tensors["spread"][:2].clone(),
            whitening=torch.eye(2, dtype=torch.float64),
        )
    ),
    "no threshold": _rewritten(lambda about, _: about.pop("threshold")),
    "a threshold that is text": _rewritten(lambda about, _: about.update(threshold="low")),
    "a threshold that is NaN": _rewritten(lambda about, _: about.update(threshold=math.nan)),
    "too few photos": _rewritten(lambda about, _: about.update(n_calibration=18)),
    "no settings": _rewritten(lambda about, _: about.pop("settings")),
    "settings that are none": _rewritten(lambda about, _: about.update(settings=[1])),
    "a setting is missing": _rewritten(lambda about, _: about["settings"].pop("power")),
    "a rate that is text": _rewritten(lambda about, _: about.update(fpr="0.05")),
    "a rate out of range": _rewritten(lambda about, _: about.update(fpr=2.0)),
    "other signals": _rewritten(lambda about, _: about.update(signals=["mean", "spread", "trust"])),
    "a rate that is NaN": _rewritten(lambda about, _: about.update(fpr=math.nan)),
    "a rate of 0": _rewritten(lambda about, _: about.update(fpr=0.0)),
    "a rate that is true": _rewritten(lambda about, _: about.update(fpr=True)),
    "a threshold of -inf": _rewritten(lambda about, _: about.update(threshold=-math.inf)),
    "a threshold that no float holds": _rewritten(lambda about, _: about.update(threshold=-(10**400))),
    "a threshold above all scores": _rewritten(lambda about, _: about.update(threshold=0.5)),
    "no photo": _rewritten(lambda about, _: about.update(n_calibration=0)),
    "half a photo": _rewritten(lambda about, _: about.update(n_calibration=22.5)),
    "more photos than a float counts": _rewritten(lambda about, _: about.update(n_calibration=10**400)),
    "photos as text": _rewritten(lambda about, _: about.update(n_fit="22")),
    "a shrinkage that is NaN": _rewritten(lambda about, _: about.update(shrinkage=math.nan)),
    "a seed that is text": _rewritten(lambda about, _: about.update(seed="3")),
    "a seed that is an object": _rewritten(lambda about, _: about.update(seed={"0": 0})),
    "a whitening of zeros": _rewritten(lambda _, tensors: tensors["whitening"].zero_()),
    "a whitening that overlooks a signal": _rewritten(lambda _, tensors: tensors["whitening"][:, 1].zero_()),
    "a whitening that is infinite": _rewritten(lambda _, tensors: tensors["whitening"].fill_(math.inf)),
    "a spread of short floats": _rewritten(lambda _, tensors: tensors.update(spread=tensors["spread"].bfloat16())),
    "signals that are no list": _rewritten(lambda about, _: about.update(signals=5)),
    "a kind that is an object": _rewritten(lambda about, _: about.update(detector={"a": [[]]})),
    "more than a file holds": _rewritten(lambda about, _: about.update(trusted=True)),
    "settings of any depth": _rewritten(lambda about, _: about.update(settings=_deep(900))),
    "a name of a megabyte": _rewritten(
        lambda about, _: about.update(classifier={"name": "x" * 10**6, "fingerprint": ""})
    ),
    "another format": _rewritten(lambda about, _: about.update(format=2)),
    "no classifier": _rewritten(lambda about, _: about.update(classifier="efficientnet")),
}


@pytest.mark.parametrize("damage", _DAMAGE.values(), ids=list(_DAMAGE))
def test_a_damaged_or_foreign_file_is_refused_in_a_sentence(
    drawn: _PixelDetector, smooth_classifier: Classifier, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "pixels.safetensors"
    drawn.save(path)
    damage(path)
    with pytest.raises(InputError) as caught:
        _PixelDetector.load(path, smooth_classifier)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert "pixels.safetensors" in message or "a false-positive rate of " in message
    before = drawn.density_
    with pytest.raises(InputError):
        drawn.restore(path)
    assert drawn.density_ is before


def test_a_file_that_is_not_there_is_named(
    drawn: _PixelDetector, smooth_classifier: Classifier, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"^'.*none' is no file"):
        _PixelDetector.load(tmp_path / "none", smooth_classifier)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe' is no file \(it is a pipe"):
        _PixelDetector.load(tmp_path / "pipe", smooth_classifier)
    for path in (tmp_path, tmp_path / "no" / "folder"):
        with pytest.raises(InputError, match=r"cannot be written; give the name of a file in a folder that exists"):
            drawn.save(path)


def test_nothing_is_left_on_the_model(smooth_classifier: Classifier, photos: Tensor, tmp_path: Path) -> None:
    module = smooth_classifier.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    detector = _PixelDetector(smooth_classifier).fit(photos, KEYS)
    detector.explain(photos[:2])
    detector.save(tmp_path / "d.safetensors")
    _PixelDetector.load(tmp_path / "d.safetensors", smooth_classifier)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_new_clean_photo_is_flagged_at_the_named_rate(smooth_classifier: Classifier) -> None:
    """Over many draws of clean photos; the signals are drawn, not measured."""
    draw, trials = torch.Generator().manual_seed(0), 200
    flagged = []
    for trial in range(trials):
        values = torch.randn(44, 3, generator=draw, dtype=torch.float64).exp()
        detector = _PixelDetector(smooth_classifier, seed=trial, fpr=0.2).fit_measured(values, KEYS)
        new = torch.randn(50, 3, generator=draw, dtype=torch.float64).exp()
        flagged.append(float((detector.density_.score(new) < detector.threshold_).double().mean()))
    # k = ⌊0.2 · 23⌋ = 4; a trial's rate has the law Beta(4, 19), of standard deviation 0.077, and 50 photos' own 0.054.
    error = math.sqrt((0.077**2 + 0.054**2) / trials)
    assert sum(flagged) / trials == pytest.approx(4 / 23, abs=4 * error)
