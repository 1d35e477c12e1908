"""AttnLRP: layer-wise relevance propagation through attention (Achtibat et al., ICML 2024)."""

from collections.abc import Hashable, Mapping

from underfire.errors import InputError
from underfire.interpreters.attention_rules import attention_rules
from underfire.interpreters.function_rules import FUNCTIONS
from underfire.interpreters.layer_rules import LayerRules, layer_rules
from underfire.interpreters.lrp import RelevanceInterpreter, check_settings
from underfire.interpreters.relevance import Rule
from underfire.models.classifier import Classifier


class AttnLRP(RelevanceInterpreter):
    """The relevance of pixels for the class's logit in a transformer, as a saliency map.

    The map is the channel maximum of its magnitude, 4×4 mean pooled and min–max scaled. Layers have the ε rule,
    attention's products and gated units share relevance evenly, the softmax has its Taylor expansion, and norms and
    activations hand on what comes. Attention is met as torch's functions, so that transformers of torchvision, timm
    and Hugging Face are all one.

    Args:
        classifier: the classifier to explain.
        epsilon: added to the size of a linear layer's outputs, by which relevance is lost; in units of the outputs.
        gamma: in place of that, by which contributions of an output's own sign count more, in linear layers and
            convolutions; it makes maps less noisy, and steps of an attack longer.
        softmax: whether relevance goes through attention's weights; without, they are constants (CP-LRP, Ali et al.
            2022), as the authors' package LXT has them in vision transformers.

    Raises:
        InputError: a setting is negative or not finite, or the model calls a function that has no rule.
    """

    name = "attnlrp"
    title = "AttnLRP"
    summary = "relevance handed back from the class logit through attention"
    needs = "attention, as softmax or scaled_dot_product_attention"
    passes_per_step = 3

    def __init__(
        self, classifier: Classifier, *, epsilon: float = 0.0, gamma: float = 0.0, softmax: bool = True
    ) -> None:
        check_settings(epsilon=epsilon, gamma=gamma)
        self.epsilon, self.gamma, self.softmax = epsilon, gamma, softmax
        super().__init__(classifier)

    @property
    def settings(self) -> tuple[Hashable, ...]:
        """The numbers of the rules."""
        return self.name, self.epsilon, self.gamma, self.softmax

    def rules(self) -> Mapping[str, Rule]:
        """Those of LRP, with γ for linear layers too, and those of attention."""
        layers = LayerRules(epsilon=self.epsilon, gamma=self.gamma, linear_gamma=self.gamma, box=False)
        return {**FUNCTIONS, **layer_rules(layers), **attention_rules(softmax=self.softmax)}

    @classmethod
    def available(cls, classifier: Classifier) -> str | None:
        """As for LRP; or that there is no attention, where LRP has the better rules."""
        try:
            made = cls(classifier)
        except InputError as error:
            return str(error)
        if made.met & attention_rules(softmax=made.softmax).keys():
            return None
        return f"attnlrp is for attention, and {classifier.name!r} calls none; lrp has rules for its layers."
