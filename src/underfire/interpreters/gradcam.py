"""Grad-CAM (Selvaraju et al. 2017), the generalisation of CAM to any head."""

from torch import Tensor

from underfire.interpreters.activations import GradientWeighted


class GradCAM(GradientWeighted):
    """The last activation, each channel weighted by the spatial mean of the class logit's gradient, min–max scaled.

    Signed before scaling by default, so that it equals CAM wherever CAM is defined;
    ``relu=True`` cuts the negative part off, as the original does for display.
    """

    name = "gradcam"
    title = "Grad-CAM"
    summary = "last activation weighted by the mean gradient of the class logit; any head"

    def weights(self, activation: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG002 - reads the gradient alone
        """The spatial means (N, C, 1, 1) of the gradient."""
        return slope.mean(dim=(2, 3), keepdim=True)
