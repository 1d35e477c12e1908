import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underfire.audit.saved import from_8bit, to_8bit


@given(
    st.integers(0, 255), st.floats(-1, 1), st.one_of(st.integers(0, 60).map(lambda k: k / 255), st.floats(0.001, 0.3))
)
def test_what_is_saved_is_the_nearest_value_inside_the_budget(centre: int, push: float, eps: float) -> None:
    benign = torch.full((1, 3, 1, 1), centre / 255)
    x_adv = (benign + push * eps).clamp(0, 1)
    saved = int(to_8bit(x_adv, benign, eps)[0, 0, 0, 0])
    allowed = [k for k in range(256) if abs(k - centre) <= eps * 255 + 1e-6]
    value = float(x_adv[0, 0, 0, 0]) * 255
    assert saved in allowed
    assert abs(saved - value) == pytest.approx(min(abs(k - value) for k in allowed), abs=1e-4)


def test_pixels_are_multiples_of_1_over_255_in_either_precision() -> None:
    pixels = torch.arange(256).byte()
    for dtype in (torch.float32, torch.float64):
        values = from_8bit(pixels, dtype)
        assert values.dtype == dtype
        assert torch.equal(to_8bit(values[None, :, None, None], values[None, :, None, None], 0.1).flatten(), pixels)
