"""The same work done by underfire and by other libraries.

The others get the plain module in evaluation mode with frozen parameters; underfire gets the classifier of the same
network and pays, within its time, for preparing its own copy, for checking its input and for scoring the result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor

from benchmarks import rival_attacks as attacks
from benchmarks import rival_certificates as certificates
from benchmarks import rival_maps as maps
from benchmarks.stand_ins import importable
from benchmarks.subject import Subject

OURS = "underfire"
SAME = 1e-9
"""Results of float64 that differ by no more are equal."""


def _none(_: Subject) -> str:
    return ""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        library: the module that must be there.
        run: from a subject to images (N, C, H, W), maps (N, h, w) or radii (N,), which must not depend on the library
            unless it differs.
        lacks: in words, why it cannot do the work on a subject; empty if it can.
        differs: in words, what it does otherwise than ours on a subject; empty if it computes the same.
        same: how far results of float64 may differ.
    """

    library: str
    run: Callable[[Subject], Tensor]
    lacks: Callable[[Subject], str] = _none
    differs: Callable[[Subject], str] = _none
    same: float = SAME

    def missing(self) -> str:
        """In words, why the library cannot be imported; empty if it can."""
        importable()
        try:
            import_module(self.library)
        except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
            return str(error)
        return ""


def _always(words: str) -> Callable[[Subject], str]:
    return lambda _: words


@dataclass(frozen=True)
class Family:
    """Those who do the same work.

    Attributes:
        title: what the work is.
        contenders: by name, ours first.
    """

    title: str
    contenders: Mapping[str, Contender]


_EARLIER = "it returns the last image before the last step that has the target class, and the photo where none has"
_FLOAT32 = "its images are float32 whatever the model's type"
_ENLARGED = "it cuts its maps at 0 and enlarges them to the image"
_OTHER_DRAWS = "it draws other noise"

FAMILIES: Mapping[str, Family] = {
    "PGD": Family(
        f"PGD, {attacks.STEPS} steps at ε = {attacks.EPS * 255:.0f}/255",
        {
            OURS: Contender("underfire", attacks.our_pgd),
            "Foolbox": Contender("foolbox", attacks.foolbox_pgd),
            "torchattacks": Contender("torchattacks", attacks.torchattacks_pgd),
            "Captum": Contender("captum", attacks.captum_pgd),
            "adv-lib": Contender("adv_lib.attacks", attacks.adv_lib_pgd, differs=_always(_EARLIER)),
            "ART": Contender("art.attacks.evasion", attacks.art_pgd, differs=_always(_FLOAT32)),
        },
    ),
    "GRAD": Family(
        "Maps of GRAD",
        {
            OURS: Contender("underfire", maps.our_grad),
            "Captum": Contender("captum", maps.captum_saliency),
            "zennit": Contender("zennit.attribution", maps.zennit_gradient),
        },
    ),
    "IG": Family(
        f"Maps of IG, {maps.POINTS} points",
        {
            OURS: Contender("underfire", maps.our_ig),
            "Captum": Contender("captum", maps.captum_ig),
            "Captum, a point at a time": Contender("captum", maps.captum_ig_in_batches),
        },
    ),
    "Grad-CAM": Family(
        "Maps of Grad-CAM",
        {
            OURS: Contender("underfire", maps.our_gradcam),
            "Captum": Contender("captum", maps.captum_gradcam, lacks=maps.no_grid),
            "pytorch-grad-cam": Contender("pytorch_grad_cam", maps.pytorch_grad_cam, differs=_always(_ENLARGED)),
        },
    ),
    "guided": Family(
        "Maps of guided back-propagation",
        {
            OURS: Contender("underfire", maps.our_guided, lacks=maps.no_relu),
            "Captum": Contender("captum", maps.captum_guided, differs=maps.relu6),
            "zennit": Contender("zennit.composites", maps.zennit_guided),
        },
    ),
    "LRP": Family(
        "Maps of LRP, ε = 0, γ = 0.25, z^B",
        {
            OURS: Contender("underfire", maps.our_lrp, lacks=maps.no_rules),
            # z^B divides by what may be 0, and each adds its own 1e-6 to that.
            "zennit": Contender("zennit.composites", maps.zennit_lrp, differs=maps.sums, same=1e-5),
        },
    ),
    "certificate": Family(
        f"Certificates of {certificates.PHOTOS} labels at σ = {certificates.SIGMA}",
        {
            OURS: Contender("underfire", certificates.our_radii),
            "ART": Contender(
                "art.estimators.certification.randomized_smoothing",
                certificates.art_radii,
                differs=_always(_OTHER_DRAWS),
            ),
        },
    ),
}
