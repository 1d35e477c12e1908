"""Whatever is kept on disk under a version: when the values change, the version has to.

The values are those of the dyadic network, rounded to what any machine agrees on. If one of these tests fails, raise
the ``version`` beside the code that makes the value, and record it here with the hash that the failure tells.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from golden.subjects import DYADIC
from golden.values import Attacked
from support.toy_photos import one_thread
from underfire.attacks.adv2 import ADV2
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.ensemble_signals import EnsembleSignals
from underfire.defenses.score_based import ScoreSearch
from underfire.interpreters import CAM, GRAD

RECORDED: Mapping[str, tuple[int, str]] = {
    "ADV2": (2, "f609d2c59def371c"),
    "AdaptiveADV2": (2, "0d00fb15a4fb2ceb"),
    "ScoreSearch": (1, "f38c3f68e360d585"),
    "EnsembleSignals": (2, "85c950fbb310c066"),
}
"""By producer: its version, and a hash of what it makes."""


def rounded(values: Tensor, step: float) -> str:
    """A hash of ``values`` in whole steps: equal on machines whose last bits differ."""
    return hashlib.sha256(torch.round(values.double() / step).to(torch.int64).numpy().tobytes()).hexdigest()[:16]


def test_images_do_not_change_without_their_version(attacks: Mapping[str, Attacked]) -> None:
    images, level = {name: made.images for name, made in attacks.items()}, 1 / 255
    made = {
        "ADV2": (ADV2.version, rounded(images["adv2 cam"], level)),
        "AdaptiveADV2": (AdaptiveADV2.version, rounded(images["adaptive cam+grad even"], level)),
        "ScoreSearch": (ScoreSearch.version, rounded(images["score search"], level)),
    }
    assert made == {name: RECORDED[name] for name in made}


def test_signals_do_not_change_without_their_version() -> None:
    classifier = DYADIC.classifier(size=16)
    x = DYADIC.inputs(3, 16, 5)
    with one_thread():
        signals = EnsembleSignals([CAM(classifier), GRAD(classifier)], seed=0)
        values = signals.measure(x, ("a", "b", "c"))
    assert (EnsembleSignals.version, rounded(values, 1e-4)) == RECORDED["EnsembleSignals"]
