"""LayerCAM (Jiang et al. 2021)."""

from torch import Tensor

from underfire.interpreters.activations import GradientWeighted


class LayerCAM(GradientWeighted):
    """The activation times the positive part of the class logit's gradient in it, cell by cell, summed over channels.

    Min–max scaled. Made for layers of any depth: name one with ``layer``.
    """

    name = "layercam"
    title = "LayerCAM"
    summary = "an activation times the positive part of the gradient of the class logit, cell by cell"

    def weights(self, activation: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG002 - reads the gradient alone
        """The positive part (N, C, h, w) of the gradient."""
        return slope.relu()
