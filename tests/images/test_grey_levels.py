import torch

from underfire.images.png import from_8bit


def test_pixels_are_multiples_of_1_over_255_in_either_precision() -> None:
    pixels = torch.arange(256).byte()
    for dtype in (torch.float32, torch.float64):
        values = from_8bit(pixels, dtype)
        assert values.dtype == dtype
        assert torch.equal((values.double() * 255).round().byte(), pixels)
