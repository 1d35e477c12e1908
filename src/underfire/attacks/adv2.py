"""ADV²: the attack on prediction and interpretation together (Zhang et al. 2020, USENIX Security)."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from underfire.attacks.control import Schedule
from underfire.attacks.engine import Setting
from underfire.attacks.perturbations import Linf
from underfire.attacks.result import AttackResult
from underfire.attacks.scored import attack_and_score
from underfire.errors import InputError
from underfire.interpreters.base import Interpreter
from underfire.seeding import owners

TargetMap = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


class ADV2:
    """Finds x* near x with f(x*) = c_t whose attribution maps look like the target maps.

    A PGD warm start, then joint steps: the direction that lowers the interpretation loss of every attacked
    interpreter, and that of the prediction as long as p_t is below 0.95. For each image by itself, of the iterates
    that have the label with p_t of at least 0.9 the one nearest the target maps is kept; if there is none, the one
    with the highest p_t.

    Args:
        interpreters: the interpreter under attack, or several of one classifier.
        eps: L∞ budget, in pixel values of [0, 1].
        steps: all of them, warm start included.
        step_size: length of a warm-start step in pixel values; joint steps decay from four
            times to a quarter of it.
        seed: of the random numbers that an interpreter draws (path points of IG).

    Raises:
        InputError: a number is out of range, or the interpreters don't belong together.
    """

    name = "adv2"

    def __init__(
        self,
        interpreters: Interpreter | Sequence[Interpreter],
        *,
        eps: float = 8 / 255,
        steps: int = 300,
        step_size: float = 1 / 255,
        seed: int = 0,
    ) -> None:
        self.interpreters = (interpreters,) if isinstance(interpreters, Interpreter) else tuple(interpreters)
        if not self.interpreters:
            raise InputError("ADV2 attacks at least one interpreter, and none was given; PGD attacks none.")
        names = [g.name for g in self.interpreters]
        if len(set(names)) < len(names):
            raise InputError(f"the interpreters {', '.join(names)} share a name; give each one once.")
        self.classifier = self.interpreters[0].classifier
        if any(g.classifier is not self.classifier for g in self.interpreters):
            raise InputError(f"the interpreters {', '.join(names)} explain different classifiers; make them from one.")
        schedule = Schedule(
            steps,
            warm=min(50, steps // 5),
            first=step_size,
            peak=4 * step_size,
            last=step_size / 4,
        )
        self.setting = Setting(Linf(eps), schedule)
        self.seed = seed

    def __call__(
        self,
        x: Tensor,
        target: Tensor,
        *,
        target_map: TargetMap | None = None,
        label: Tensor | None = None,
        keys: Sequence[str] | None = None,
    ) -> AttackResult:
        """Attack images ``x`` (N, C, H, W) in [0, 1] towards the classes ``target`` (N,) and the target maps.

        Args:
            x: benign images.
            target: target classes, int64.
            target_map: maps (N, h, w) in [0, 1] on the native grid: a tensor for one interpreter; for several a
                list in their order or a mapping by name. By default the benign maps for ``label``.
            label: classes (N,) of the benign maps, by default the classifier's own predictions.
            keys: one name per image, the owner of its random numbers; by default its content.

        Raises:
            InputError: something doesn't fit the classifier, the interpreters or the rest.
            NonFiniteError: a loss or a map is not a number.
        """
        self.classifier.check_images(x)
        self.classifier.check_classes(target, x.shape[0])
        names = owners(x, keys)
        if target_map is None:
            classes = self.classifier.probabilities(x).argmax(dim=1) if label is None else label
            maps = [g(x, classes, keys=names) for g in self.interpreters]
        else:
            maps = self._given(target_map, x)
        pairs = dict(zip(self.interpreters, maps, strict=True))
        return attack_and_score(self.name, self.classifier, x, target, pairs, self.setting, keys=names, seed=self.seed)

    def _given(self, target_map: TargetMap, x: Tensor) -> list[Tensor]:
        """The user's target maps in the order of the interpreters, checked."""
        wanted = [g.name for g in self.interpreters]
        if isinstance(target_map, Tensor):
            maps = [target_map]
        elif isinstance(target_map, Mapping):
            if set(target_map) != set(wanted):
                raise InputError(f"target maps are given for {sorted(target_map)}, but the attack is on {wanted}.")
            maps = [target_map[name] for name in wanted]
        else:
            maps = list(target_map)
        if len(maps) != len(wanted):
            raise InputError(f"{len(maps)} target maps are given for {len(wanted)} interpreters; give one for each.")
        for g, m in zip(self.interpreters, maps, strict=True):
            if m.shape != (x.shape[0], *g.grid):
                raise InputError(f"the target map of {g.name} has shape {tuple(m.shape)}, not {(x.shape[0], *g.grid)}.")
            low, high = (v.item() for v in m.aminmax()) if m.numel() else (0.0, 0.0)
            if not (low >= 0 and high <= 1):
                seen = f"values from {low:.4g} to {high:.4g}"
                raise InputError(f"the target map of {g.name} has {seen}; maps are in [0, 1].")
        return [m.detach().to(x.device, x.dtype) for m in maps]
