"""Grad-CAM++ (Chattopadhyay et al. 2018)."""

from torch import Tensor

from underfire.interpreters.activations import GradientWeighted

_EPSILON = 1e-6  # beside the denominator, as in pytorch-grad-cam: on large networks it counts


class GradCAMPlusPlus(GradientWeighted):
    """As Grad-CAM, but each channel is weighted by Σ α·max(g, 0), g the class logit's gradient in a cell.

    α = g²/(2g² + g³·ΣA), the sum over the cells of the channel A: equation 19 of the paper, the score being exp of
    the logit. Meant for activations that are not negative, as behind a ReLU; elsewhere the denominator may be 0.
    """

    name = "gradcamplusplus"
    title = "Grad-CAM++"
    summary = "as gradcam, the rising part of the gradient weighted cell by cell by its second and third power"

    def weights(self, activation: Tensor, slope: Tensor) -> Tensor:
        """The weights (N, C, 1, 1)."""
        square = slope.square()
        total = activation.sum(dim=(2, 3), keepdim=True)
        alpha = square / (2 * square + square * slope * total + _EPSILON)
        return (alpha * slope.relu()).sum(dim=(2, 3), keepdim=True)
