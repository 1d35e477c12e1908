"""What a change of the prediction forces upon an attribution: Proposition 1, and a measure over two classes.

**Proposition 1** (Zhang et al., "Interpretable Deep Learning under Fire", USENIX Security 2020, section 5, equations
11 to 13). Let f be the probability of the target class, the other being the label; ℓ_prd = f(x*) − f(x°) and Δm the
attribution of f along the straight path from x° to x*. Since Σ Δm = ℓ_prd,

    ℓ_prd ≤ ‖Δm‖₁ =: ℓ_int,   with equality where every term of Δm is ≥ 0.

It is the triangle inequality, so it holds for every classifier and every x*; no attack can break it, and none is held
back by it from more than f itself. Δm is in units of probability, summed over all values of the image, and its baseline
is x°, whose own attribution is then zero. What a person compares is another thing: the map of the *label* for x° with
the map of the *target* for x*, each from another baseline or none, without its sign, averaged over cells, and scaled to
[0, 1]. Of two such maps Proposition 1 says nothing: they can be equal at any ℓ_prd.

**Two classes.** Why they can be equal, and what to compare in place of them, is the subject of Boopathy et al., "Proper
Network Interpretability Helps Adversarial Robustness in Classification", ICML 2020. The form here is derived anew:

*Theorem.* For classes c ∈ {y, t} let I(x, c) be attributions with Σ_i I_i(x, c) = z_c(x) − b_c, where z_c is the output
that is explained and b_c does not depend on x (completeness with one baseline for all images). Let

    D(x, x*) = ½ (‖I(x, y) − I(x*, y)‖₁ + ‖I(x, t) − I(x*, t)‖₁),      M(x) = z_y(x) − z_t(x).

Then D(x, x*) ≥ ½ |M(x) − M(x*)|.

*Proof.* ‖I(x, c) − I(x*, c)‖₁ ≥ |Σ_i (I_i(x, c) − I_i(x*, c))| = |z_c(x) − z_c(x*)|, for b_c cancels. So D is at least
½ (|z_y(x) − z_y(x*)| + |z_t(x) − z_t(x*)|), and that is at least ½ |M(x) − M(x*)|, again by the triangle inequality. ∎

Where x is seen as y and x* as t, M(x) ≥ 0 ≥ M(x*), hence D ≥ ½ M(x): no attack that changes the prediction from y to t
evades D, and the surer the model was, the less. One class alone has no such bound: an attacker may move z_t alone, and
the attribution of y not at all. Nor has the pair that a person is shown: I(x, y) = I(x*, t) asks for no more than
z_t(x*) − b_t = z_y(x) − b_y. The conditions are needed: scaling a map to [0, 1] changes its sum at will, and taking
absolute values before summing breaks completeness; summing cells or channels does not. With x° as the baseline D is
half the sum of two ‖Δm‖₁, and the theorem is Proposition 1 for the margin. The bound is of use only where it is not far
below D, and where D is larger under attack than under benign corruptions; that is for measurement.

An attribution by quadrature is complete up to a residual r; then D ≥ ½ |M(x) − M(x*)| − ½ Σ r, over the four of them.
Likewise ℓ_prd ≤ ‖Δm‖₁ + r. What is tested on an image is completeness, that r is within a tolerance, by
`underfire.interpreters.path.integrate`; gradients that are not the model's own fail there. Both inequalities, up to r,
follow from it, and are checked only against mistakes in this code.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.interpreters.path import PathAttribution, field_of, integrate
from underfire.models.classifier import Classifier

_ROUNDING = 1e-9  # of the larger side: sums of a few hundred thousand float64


class BoundViolationError(RuntimeError):
    """An inequality that follows from completeness has failed: a mistake in this code, whatever the model."""


@dataclass(frozen=True)
class Proposition1:
    """The two sides of Proposition 1 for one image, in units of probability.

    Attributes:
        prediction: ℓ_prd = f(x*) − f(x°), in [−1, 1].
        interpretation: ℓ_int = ‖Δm‖₁.
        residual: |Σ Δm − ℓ_prd|, the error of the quadrature as far as it shows.
        coarse: ‖Δm‖₁ by half the points.
        points: of the quadrature.
    """

    prediction: float
    interpretation: float
    residual: float
    coarse: float
    points: int

    @property
    def slack(self) -> float:
        """ℓ_int − ℓ_prd."""
        return self.interpretation - self.prediction


def proposition_1(
    classifier: Classifier, benign: Tensor, x: Tensor, *, label: int, target: int, tolerance: float
) -> Proposition1:
    """Both sides of Proposition 1 for ``x`` near ``benign``, both (C, H, W) in [0, 1].

    f is the two-class restriction of the classifier: p(target | label or target), the softmax of their two logits. A
    binary classifier is its own restriction.

    Args:
        classifier: any.
        benign: x°.
        x: x*.
        label: the class of x°.
        target: the class aimed at.
        tolerance: of the completeness residual, in units of probability.

    Raises:
        InputError: an argument is not what the classifier takes.
        IncompleteError: the quadrature does not come within ``tolerance``.
        BoundViolationError: ℓ_prd is above ℓ_int by more than ``tolerance``, which a complete attribution excludes.
    """
    _check(classifier, (benign, x), (label, target))

    def restricted(logits: Tensor) -> Tensor:
        return (logits[:, target] - logits[:, label]).sigmoid()[:, None]

    with classifier.frozen():
        found = integrate(field_of(classifier, restricted), benign, x, tolerance=tolerance)
    sides = Proposition1(
        float(found.change[0]), float(found.norm[0]), float(found.residual[0]), float(found.coarse[0]), found.points
    )
    check_lower_bound(sides.prediction, sides.interpretation, tolerance, "Proposition 1, ℓ_prd ≤ ‖Δm‖₁")
    return sides


def logit_attributions(
    classifier: Classifier, x: Tensor, *, label: int, target: int, tolerance: float, baseline: float = 0.0
) -> PathAttribution:
    """Integrated gradients of the logits of ``label`` and ``target`` for ``x`` (C, H, W), in this order.

    Signed and unscaled, from an image of the value ``baseline``, as ``IG.attribute`` with ``output="logit"``, but to
    a stated ``tolerance`` of the completeness residual, in units of the logits.

    Raises:
        InputError: an argument is not what the classifier takes.
        IncompleteError: the quadrature does not come within ``tolerance``.
    """
    _check(classifier, (x,), (label, target))

    def logits_of_both(logits: Tensor) -> Tensor:
        return logits[:, [label, target]]

    with classifier.frozen():
        start = torch.full_like(x, baseline)
        return integrate(field_of(classifier, logits_of_both), start, x, tolerance=tolerance)


def two_class_discrepancy(benign: Tensor, attacked: Tensor) -> float:
    """D of two images by their attributions (2, …), signed and unscaled, for the label and for the target class.

    Raises:
        ValueError: the shapes differ, or there are not two classes.
    """
    if benign.shape != attacked.shape or benign.shape[:1] != (2,):
        raise ValueError(
            f"attributions of shapes {tuple(benign.shape)} and {tuple(attacked.shape)} were given; give two of (2, …)"
        )
    return float((benign.double() - attacked.double()).abs().sum()) / 2


@dataclass(frozen=True)
class TwoClass:
    """The two sides of the theorem for one image, in units of the logits.

    Attributes:
        discrepancy: D.
        half_margin: ½ |M(x°) − M(x*)|, its lower bound.
        residual: ½ Σ r over the four attributions: what quadrature may take from D.
    """

    discrepancy: float
    half_margin: float
    residual: float


def two_class(benign: PathAttribution, attacked: PathAttribution) -> TwoClass:
    """Both sides of the theorem, from `logit_attributions` of two images with the same classes and baseline.

    Raises:
        BoundViolationError: D is below its bound by more than the residuals, which complete attributions exclude.
    """
    moved = attacked.change - benign.change
    sides = TwoClass(
        two_class_discrepancy(benign.values, attacked.values),
        float((moved[0] - moved[1]).abs()) / 2,
        float(benign.residual.sum() + attacked.residual.sum()) / 2,
    )
    check_lower_bound(sides.half_margin, sides.discrepancy, sides.residual, "the bound over two classes, ½ |ΔM| ≤ D")
    return sides


def check_lower_bound(lower: float, upper: float, tolerance: float, what: str) -> None:
    """Raises `BoundViolationError` unless ``lower`` ≤ ``upper`` + ``tolerance``, up to the rounding of sums."""
    if not lower <= upper + tolerance + _ROUNDING * max(abs(lower), abs(upper)):
        raise BoundViolationError(f"{what}, is violated: {lower:.6g} > {upper:.6g} with a tolerance of {tolerance:.3g}")


def _check(classifier: Classifier, images: tuple[Tensor, ...], classes: tuple[int, ...]) -> None:
    classifier.check_images(torch.stack(images))
    classifier.check_classes(torch.tensor(classes, device=classifier.device), len(classes))
