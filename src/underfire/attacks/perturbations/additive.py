"""What perturbation models share that add to an image: the image itself is the parameter."""

from torch import Tensor


class Additive:
    """θ is the perturbed image, so that nothing has to be made of it, nor carried back to it."""

    def start(self, x: Tensor) -> Tensor:
        """The image itself is the parameter."""
        return x.clone()

    def image(self, x: Tensor, theta: Tensor) -> Tensor:  # noqa: ARG002 - θ is the image
        """``theta``, the image itself."""
        return theta

    def pull_back(self, x: Tensor, theta: Tensor, direction: Tensor) -> Tensor:  # noqa: ARG002 - the Jacobian is 1
        """``direction``, unchanged."""
        return direction
