"""HiResCAM (Draelos & Carin 2020)."""

from torch import Tensor

from underfire.interpreters.activations import GradientWeighted


class HiResCAM(GradientWeighted):
    """The last activation times the class logit's gradient in it, cell by cell, summed over channels, min–max scaled.

    Where the head is one linear layer it shows what each cell adds to the logit. It is CAM where that reads a mean.
    """

    name = "hirescam"
    title = "HiResCAM"
    summary = "last activation times the gradient of the class logit, cell by cell"

    def weights(self, activation: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG002 - reads the gradient alone
        """The gradient (N, C, h, w) itself."""
        return slope
