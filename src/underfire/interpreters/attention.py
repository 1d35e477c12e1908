"""What interpreters share that follow attention from layer to layer."""

from abc import abstractmethod

from torch import Tensor

from underfire.interpreters.activations import TappedInterpreter
from underfire.interpreters.base import ForwardPass
from underfire.interpreters.maps import shape_distance
from underfire.models.attention import Attention, find_attention
from underfire.models.classifier import Classifier


class AttentionInterpreter(TappedInterpreter[Attention]):
    """A map (h, w) of the cells by what flows from them, through all layers, to the tokens that the head reads.

    That is the row of a class token, or the mean of several rows: of two class tokens, or of all tokens whose mean
    is read. Columns of tokens that are no cells are left out.

    Args:
        classifier: the classifier to explain, in which each layer attends between all tokens of an image.

    Raises:
        InputError: it does not.
    """

    family = "attention"
    needs = "a transformer in which each layer attends between all tokens of an image"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier, self.find(classifier), loss=shape_distance)

    @classmethod
    def find(cls, classifier: Classifier) -> Attention:
        """The attention that is read; raises `InputError` if there is none."""
        return find_attention(classifier)

    def raw_maps(self, view: ForwardPass, classes: Tensor, *, attackable: bool = True) -> Tensor:
        """Unscaled maps (N, h, w) of ``view`` for ``classes`` (N,), attached to it if ``attackable``."""
        tap = self._tap
        flow = view.logits.new_zeros(len(view.logits), 1, tap.tokens)
        flow[:, :, list(tap.read)] = 1 / len(tap.read)
        for weights in reversed(self.mixed(view, classes, attackable=attackable)):
            flow = (flow + flow @ weights) / 2  # the halves keep it from growing; maps have no scale
        raw: Tensor = tap.layout.cells(flow.squeeze(1)).unflatten(1, tap.grid)
        return raw if attackable else raw.detach()

    @abstractmethod
    def mixed(self, view: ForwardPass, classes: Tensor, *, attackable: bool) -> list[Tensor]:
        """What each layer brings from token to token, (N, T, T) each, rows from columns."""
