"""Square: a random search that sees only probabilities and maps (after Andriushchenko et al. 2020, Square Attack)."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn

from underfire.attacks.budget import check_whole
from underfire.attacks.engine import Outcome
from underfire.attacks.joint import JointAttack, Terms
from underfire.attacks.keepers import KeptIterates
from underfire.attacks.labels import Confidence
from underfire.attacks.perturbations import Linf
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import score
from underfire.attacks.target_maps import classifier_and_interpreters
from underfire.attacks.trace import Recorder
from underfire.attacks.windows import draws, redraw, share_at
from underfire.errors import InputError, NonFiniteError
from underfire.interpreters.base import Interpreter, require_finite
from underfire.interpreters.maps import distance
from underfire.models.classifier import Classifier
from underfire.seeding import generator


class Square(JointAttack):
    """ADV² without gradients of its own: it sees ``classifier.probabilities(x)`` and ``interpreter(x, target)`` only.

    A query is one look at one image by the classifier and, where its label is reached, by the interpreters. Each
    proposes to fill one square window of the best image so far with the benign pixels plus stripes of random
    direction, wavelength, phase and sign per channel. As long as the label does not hold (argmax, with p_t of at least
    0.9) the stripes are of height eps, and a proposal is taken if it raises p_t. Once it holds their height is drawn
    from (0, eps], and a proposal is taken if the label still holds and the maps are nearer to their targets. An image
    with a mean map distance of at most 0.002 is done and asks no more.

    Nothing is differentiated outside the interpreter, so a classifier whose gradients vanish or mislead is no harder
    than another. That makes it the check on attacks with gradients, which need far fewer passes: see
    :func:`underfire.diagnostics.gradient_masking.compare`.

    In the result a pass is one run of the classifier, forward alone or forward and backward: one for a query, and what
    the interpreters run beyond it, counted at the module (1 for CAM, 32 for IG with 32 points). The runs that make the
    benign maps are not counted, nor is the final score. In its trace the distance to the target maps is infinite, and
    its first value NaN, where no label held and so no map was asked for.

    Args:
        attacked: a classifier, whose prediction alone is attacked, or an interpreter or several of one classifier,
            whose maps are attacked with it.
        eps: L∞ budget, in pixel values of [0, 1].
        queries: the most looks at one image; the first is at the benign one.
        seed: of the proposals, which belong to (seed, key of the image).

    Raises:
        InputError: a number is out of range, the interpreters don't belong together, or a map of one takes
            many passes.
    """

    name = "square"
    title = "Square"
    summary = "as adv2 but without gradients, a random search to check the others (linf only)"
    unit = "queries"
    per_pass = 10
    """A query goes forward only, and tells one number, not a direction."""
    perturbations = (Linf.name,)
    asks_for_maps = True
    version = 1

    def __init__(
        self,
        attacked: Classifier | Interpreter | Sequence[Interpreter],
        *,
        eps: float = Linf.eps,
        queries: int = 1000,
        seed: int = 0,
    ) -> None:
        check_whole("queries", queries)
        if queries < 1:
            raise InputError(f"queries is {queries}; a search takes at least 1.")
        super().__init__(*classifier_and_interpreters(attacked, "Square"), seed=seed)
        slow = next((g for g in self.interpreters if g.slow), None)
        if slow is not None:
            raise InputError(
                f"Square asks for a map at every query, and one of {slow.name} takes {slow.passes_per_map} "
                "passes; leave it out."
            )
        self.perturbation = Linf(eps)
        self.queries = queries

    @classmethod
    def planned(cls, _classifier: Classifier, interpreters: Sequence[Interpreter], terms: Terms) -> Self:
        """The attack on ``interpreters`` by the terms of a plan, with as many queries as these have passes or steps."""
        queries = terms.effort.passes or terms.effort.steps or 0
        return cls(interpreters, eps=terms.perturbation.eps, queries=queries, seed=terms.seed)

    def most_passes(self) -> int:
        """Those of its queries, which go forward alone, and of a map at each."""
        return self.queries * (1 + sum(g.passes_per_map for g in self.interpreters))

    def run(
        self, x: Tensor, target: Tensor, goals: Mapping[Interpreter, Tensor], keys: tuple[str, ...]
    ) -> AttackResult:
        """Search on a checked batch, and score what is found."""
        started = time.perf_counter()
        with self.classifier.frozen():
            search = _Search(self.classifier, goals, self.perturbation, x, target, keys, self.seed)
            search.run(self.queries)
        x_adv = search.best.theta
        trace = search.recorder.trace(search.best, joint=bool(goals))
        return score(
            self.name,
            self.classifier,
            x,
            target,
            goals,
            Outcome(x_adv, self.perturbation.size(x, x_adv), search.recorder.passes, trace),
            perturbation=self.perturbation,
            steps=self.queries,
            keys=keys,
            started=started,
        )


class _Search:
    """One search on a batch. The image to propose from is always the best so far: nothing else is remembered."""

    def __init__(
        self,
        classifier: Classifier,
        goals: Mapping[Interpreter, Tensor],
        model: Linf,
        x: Tensor,
        target: Tensor,
        keys: tuple[str, ...],
        seed: int,
    ) -> None:
        self._classifier, self._goals, self._model = classifier, goals, model
        self._x, self._target, self._keys = x, target, keys
        self._draws = [generator(seed, key, Square.name) for key in keys]
        self._confidence = Confidence()
        self.best = KeptIterates(x)
        self.recorder = Recorder(x)

    def run(self, queries: int) -> None:
        """Look at the benign images, then at one proposal after the other."""
        rows = torch.arange(self._x.shape[0], device=self._x.device)
        for query in range(queries):
            if query == (queries + 1) // 2:
                self.recorder.halfway(self.best)
            rows = rows[~self.best.done(rows)]
            if not len(rows):
                return
            share = share_at(query / queries)
            self._look(self._proposals(rows, share) if query else self._x, rows)

    def _look(self, images: Tensor, rows: Tensor) -> None:
        """One query of ``images`` (n, C, H, W), proposals for the images ``rows``; the better ones are kept."""
        try:
            nll, reached, distance = self._answers(images, rows)
        except NonFiniteError as error:
            raise NonFiniteError(error.what, int(rows[error.index])) from error
        self.best.offer(images, rows=rows, reached=reached, nll=nll, distance=distance)

    def _answers(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prediction loss, whether the label is reached, and map distance, (n,) each; infinite where not asked for."""
        target = self._target[rows]
        p = self._classifier.probabilities(images)
        decision = self._classifier.decision
        logits = decision.logits(p)  # as good as the classifier's own
        nll = -p.gather(1, target[:, None]).squeeze(1).clamp_min(torch.finfo(p.dtype).tiny).log()
        require_finite(nll[:, None], "the prediction loss")
        self.recorder.look(rows, nll, None, passes=1)
        if not self._goals:
            return nll, decision.predict(logits, target) == target, nll
        reached = self._confidence.label_reached(decision, logits, target)
        distance = torch.full_like(nll, torch.inf)
        asked = reached.nonzero().squeeze(1)
        if len(asked):
            with _calls(self._classifier.module) as calls:
                try:
                    distance[asked] = self._distance(images[asked], rows[asked])
                except NonFiniteError as error:
                    raise NonFiniteError(error.what, int(asked[error.index])) from error
            self.recorder.look(rows[asked], nll[asked], distance[asked], passes=len(calls))
        return nll, reached, distance

    def _distance(self, images: Tensor, rows: Tensor) -> Tensor:
        """(n,) mean distance of the maps of ``images`` to their targets, the mean over the interpreters."""
        target, keys = self._target[rows], [self._keys[row] for row in rows.tolist()]
        distances = [distance(g(images, target, keys=keys), maps[rows]) for g, maps in self._goals.items()]
        return torch.stack(distances).mean(dim=0)

    def _proposals(self, rows: Tensor, share: float) -> Tensor:
        """The best images of ``rows`` with one window each redrawn, (n, C, H, W)."""
        images = self.best.theta[rows]
        tuning = [bool(self._goals) and math.isfinite(distance) for distance in self.best.distance[rows].tolist()]
        for image, row, is_tuned in zip(images, rows.tolist(), tuning, strict=True):
            self._redraw(image, row, share, is_tuned=is_tuned)
        return self._model.project(self._x[rows], images)

    def _redraw(self, image: Tensor, row: int, share: float, *, is_tuned: bool) -> None:
        """Fill a random window of ``image`` (C, H, W), in place, with the benign pixels of ``row`` and stripes."""
        drawn = draws(image, self._draws[row])
        redraw(image, self._x[row], drawn, share=share, height=self._model.eps * (drawn.part if is_tuned else 1.0))


@contextmanager
def _calls(module: nn.Module) -> Iterator[list[None]]:
    """A list that gets longer by one at every call of ``module`` inside the block."""
    calls: list[None] = []
    handle = module.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()
