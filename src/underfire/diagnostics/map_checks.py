"""Whether maps say anything of the model: without that, how well they resist an attack is worth nothing.

A constant map is perfectly robust, and so is one that never looks at the model. So beside each verdict on an
interpreter stands what its benign maps show of the model, on a few photos and once for a run:

* *Advantage*: insertion less deletion (`underfire.interpreters.faithfulness`), less that of a random map on the same
  grid, photo by photo. A constant map is worth what a random one is: exactly 0.
* *Similarity*: Spearman's rank correlation of the map with that of the same model with random weights. Source: the
  model parameter randomization test of Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from underfire.errors import ModelError, NonFiniteError
from underfire.interpreters import Interpreter
from underfire.interpreters.faithfulness import Probe, faithfulness
from underfire.metrics import is_constant, spearman
from underfire.models.classifier import Classifier
from underfire.models.randomised import randomised
from underfire.stats import Estimate, Share, bootstrap_mean, wilson

PHOTOS = 8
"""At most so many photos are looked at."""

PROBE = Probe(levels=5)
"""How deletion and insertion are taken: 10 forward passes of a photo for each map."""

UNCHANGED = 0.9
"""Mean rank correlation from which on a map did not change with the model's weights; that of a map of the image alone
is 1. So high a figure is not reached by maps that merely follow the image's edges in part."""


class FloorVerdict(StrEnum):
    """What the benign maps of an interpreter show of the model."""

    MET = "met"
    """They are better than random maps, and change with the model."""
    UNDECIDED = "undecided"
    """Whether they are better than random maps is not decided on so few photos, or by a blur."""
    WORSE = "worse than random"
    """Random maps are better."""
    UNCHANGED = "unchanged"
    """They are the same for a model with random weights."""
    CONSTANT = "constant"
    """They show nothing."""


@dataclass(frozen=True)
class FaithfulnessFloor:
    """What stands beside the verdict on an interpreter.

    Attributes:
        verdict: in a word, the gravest that holds.
        constant: of how many photos the map is constant.
        advantage: mean over the photos, in [-2, 2]; 0 is a random map's.
        similarity: mean over the photos, in [-1, 1]; 1 is a map that does not depend on the weights. Without a value
            where the model has no weights that could be replaced.
    """

    verdict: FloorVerdict
    constant: Share
    advantage: Estimate
    similarity: Estimate


@dataclass(frozen=True)
class MapCheck:
    """What was measured of one interpreter's benign maps, photo by photo, for run.json.

    Attributes:
        interpreter: its name in rows.
        constant: one per photo, whether its map is.
        advantage: one per photo.
        similarity: one per photo; empty where the model has no weights that could be replaced, or gave no map with
            others.

    Raises:
        ValueError: a number is out of its range, or the numbers of photos contradict each other.
    """

    interpreter: str
    constant: tuple[bool, ...]
    advantage: tuple[float, ...]
    similarity: tuple[float, ...]

    def __post_init__(self) -> None:
        n = len(self.constant)
        if not n or len(self.advantage) != n or len(self.similarity) not in (0, n):
            raise ValueError(f"the maps of {self.interpreter!r} were checked on different photos, or on none")
        for name, limit in (("advantage", 2.0), ("similarity", 1.0)):
            wrong = next((value for value in getattr(self, name) if not abs(value) <= limit), None)
            if wrong is not None:
                raise ValueError(f"the maps of {self.interpreter!r} have the {name} {wrong}")

    @property
    def floor(self) -> FaithfulnessFloor:
        """The figures and the verdict."""
        constant = wilson(sum(self.constant), len(self.constant))
        advantage, similarity = bootstrap_mean(self.advantage), bootstrap_mean(self.similarity)
        return FaithfulnessFloor(_verdict(constant, advantage, similarity), constant, advantage, similarity)


def check_maps(
    classifier: Classifier, interpreters: Sequence[Interpreter], x: Tensor, y: Tensor, *, keys: Sequence[str]
) -> tuple[MapCheck, ...]:
    """The checks of every interpreter of ``classifier``, on benign images.

    Takes, for each image, two maps of every interpreter, and 10 forward passes for each of them and for each grid.
    Leaves the model as it is.

    Args:
        classifier: that the interpreters explain.
        interpreters: by any names, no two of them the same.
        x: images (N, C, H, W) in [0, 1].
        y: int64 (N,), the classes to explain: their labels.
        keys: one name per image, the owner of its random numbers.

    Returns:
        One for each interpreter; none where there is no image.

    Raises:
        InputError: ``x`` or ``y`` is not what the classifier takes.
        NonFiniteError: a map, or an output of the classifier, is not a finite number.
    """
    if not len(x):
        return ()
    maps = {interpreter.name: interpreter(x, y, keys=keys) for interpreter in interpreters}

    def worth(shown: Tensor) -> Tensor:
        found = faithfulness(classifier, x, y, shown, probe=PROBE, keys=keys)
        return (found.insertion - found.deletion).double()

    chance = {shape: worth(x.new_zeros((len(x), *shape))) for shape in {one.shape[1:] for one in maps.values()}}
    others = _of_random_weights(classifier, interpreters, x, y, keys)
    return tuple(
        MapCheck(
            name,
            tuple(is_constant(one).tolist()),
            tuple((worth(one) - chance[one.shape[1:]]).tolist()),
            tuple(spearman(one.double(), others[name].double()).tolist()) if name in others else (),
        )
        for name, one in maps.items()
    )


def further_passes(interpreters: Sequence[Interpreter], images: int) -> int:
    """Passes that `check_maps` takes of so many images, a forward pass taken for a whole one."""
    grids = len({interpreter.grid for interpreter in interpreters})
    curves = 2 * PROBE.levels * (len(interpreters) + grids)
    return images * (curves + 2 * sum(interpreter.passes_per_map for interpreter in interpreters))


def _of_random_weights(
    classifier: Classifier, interpreters: Sequence[Interpreter], x: Tensor, y: Tensor, keys: Sequence[str]
) -> dict[str, Tensor]:
    """The maps (N, h, w) of the model with random weights, by the names of the interpreters that have one then."""
    found = {}
    with randomised(classifier, seed=PROBE.seed) as any_weights:
        for interpreter in interpreters if any_weights else ():
            try:
                found[interpreter.name] = interpreter(x, y, keys=keys)
            except (NonFiniteError, ModelError):  # such weights overflow it
                continue
    return found


def _verdict(constant: Share, advantage: Estimate, similarity: Estimate) -> FloorVerdict:
    if 2 * constant.k >= constant.n:
        return FloorVerdict.CONSTANT
    if similarity.value is not None and similarity.value >= UNCHANGED:
        return FloorVerdict.UNCHANGED
    if advantage.high is not None and advantage.high < 0:
        return FloorVerdict.WORSE
    return FloorVerdict.MET if advantage.low is not None and advantage.low > 0 else FloorVerdict.UNDECIDED
