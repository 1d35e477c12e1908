"""What the L∞ and the L2 ball share: the image is its own parameter, so every step between the two is nothing."""

import pytest
import torch

from support.toys import images
from underfire import L2, Linf

pytestmark = pytest.mark.parametrize("ball", [Linf(0.2), L2(0.7)], ids=["linf", "l2"])


def test_it_starts_at_the_image_with_nothing_used(ball: Linf | L2) -> None:
    x = images(3, 8)
    theta = ball.start(x)
    assert torch.equal(ball.image(x, theta), x)
    assert ball.size(x, theta).tolist() == [0.0, 0.0, 0.0]
    theta.zero_()  # the caller's images are not the loop's to change
    assert float(x.min()) > 0


def test_image_and_pull_back_change_nothing(ball: Linf | L2) -> None:
    x, theta, direction = images(2, 8), images(2, 8, seed=1), torch.randn(2, 3, 8, 8)
    assert torch.equal(ball.image(x, theta), theta)
    assert torch.equal(ball.pull_back(x, theta, direction), direction)


def test_a_share_for_every_value_makes_a_whole(ball: Linf | L2) -> None:
    x = images(2, 8, dtype=torch.float64)
    alike = torch.full_like(x, 0.01 * ball.share(x))
    torch.testing.assert_close(ball.size(x, x + alike), torch.full((2,), 0.01, dtype=torch.float64))


def test_harmless_noise_is_of_full_size_and_each_image_s_own(ball: Linf | L2) -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    noisy = ball.harmless(x, [torch.Generator().manual_seed(seed) for seed in (1, 2)])
    torch.testing.assert_close((noisy - x).abs(), torch.full_like(x, ball.eps * ball.share(x)))
    torch.testing.assert_close(ball.size(x, noisy), torch.full((2,), ball.eps))
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(ball.harmless(x[1:], [torch.Generator().manual_seed(2)])[0], noisy[1])
