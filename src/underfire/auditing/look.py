"""How a classifier and its interpreters see images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from underfire.errors import InputError, ModelError, NonFiniteError
from underfire.files import quoted
from underfire.interpreters import Interpreter
from underfire.interpreters.base import require_finite
from underfire.models.classifier import Classifier
from underfire.models.decisions import ONE_OF_MANY, Decision


@dataclass(frozen=True)
class ModelView:
    """What a person is shown for N images. All tensors are on the CPU."""

    probabilities: Tensor
    """(N, K); of classes that exclude each other, rows sum to 1."""
    maps: Mapping[str, Tensor]
    """By interpreter, (N, h, w) in [0, 1] on the native grid."""
    decision: Decision = ONE_OF_MANY

    def predict(self, classes: Tensor) -> Tensor:
        """(N,) int64: the predicted class of each image, compared with that in ``classes`` (N,); see `Decision`."""
        return self.decision.predict_from(self.probabilities, classes)

    def probability_of(self, classes: Tensor) -> Tensor:
        """(N,): the probability of each image's class in ``classes`` (N,)."""
        return self.probabilities.gather(1, classes[:, None])[:, 0]

    def part(self, index: Tensor) -> "ModelView":
        """The view of the images at the positions ``index`` (M,)."""
        return replace(self, probabilities=self.probabilities[index], maps={n: m[index] for n, m in self.maps.items()})


def look(
    classifier: Classifier,
    interpreters: Sequence[Interpreter],
    x: Tensor,
    classes: Tensor,
    *,
    names: Sequence[str],
    known: Mapping[str, Tensor] | None = None,
) -> ModelView:
    """Predictions on ``x`` (N, C, H, W) and every interpreter's maps for ``classes`` (N,).

    ``names`` are the owners of the images' random numbers, and what they are called in messages; ``known`` are maps
    (N, h, w) by interpreter that were taken of these very images, classes and names, and are not taken again. Raises
    `InputError` with the image's name where a number is not finite.
    """
    taken = known or {}
    x, classes = x.to(classifier.device), classes.to(classifier.device)
    probabilities = predict(classifier, x, names=names)
    with calling(names):
        maps = {
            i.name: (taken[i.name] if i.name in taken else i(x, classes, keys=names)).detach().cpu()
            for i in interpreters
        }
    return ModelView(probabilities, maps, classifier.decision)


def predict(classifier: Classifier, x: Tensor, *, names: Sequence[str]) -> Tensor:
    """Probabilities (N, K), on the CPU; raises `InputError` with the image's name where there are none."""
    x = x.to(classifier.device)
    with calling(names):
        try:
            probabilities = classifier.probabilities(x).cpu()
        except ModelError:
            for name, image in zip(names, x, strict=True):  # on which of them?
                with calling([name]):
                    classifier.probabilities(image[None])
            raise
        require_finite(probabilities, "the classifier's output")
    return probabilities


@contextmanager
def calling(names: Sequence[str]) -> Iterator[None]:
    """Gives what fails in the block the name of its photo: numbers that are not finite, and the user's model.

    Raises `InputError` in their place.
    """
    try:
        yield
    except NonFiniteError as error:
        raise InputError(
            f"{error.what} is not a finite number for photo {quoted(names[error.index])}; "
            "take that photo out, or look for the overflow in the model"
        ) from error
    except ModelError as error:
        where = "photo " + " or ".join(map(quoted, names)) if names else "the test patterns"
        raise InputError(f"{str(error).rstrip('.')}; that was on {where}.") from error
