"""Planted rows whose figures are worked out by hand."""

from support.rows import row as made
from underfire.auditing.condition import Condition
from underfire.auditing.rows import Row


def row(
    image_id: str,
    condition: str,
    interpreter: str = "cam",
    *,
    success: bool = False,
    l1: float = 0.0,
    iou: float = 1.0,
    confidence: float = 0.5,
    success_8bit: bool | None = None,
    l1_8bit: float | None = None,
    iou_8bit: float | None = None,
    label_given: bool = True,
    excluded: str | None = None,
    **course: float,
) -> Row:
    """A row whose other IoUs are shares of ``iou``; 8-bit columns repeat the others unless given."""
    iou_8bit = iou if iou_8bit is None else iou_8bit
    shares = {"iou_50": 1.0, "iou_25": 0.9, "iou_75": 0.8, "iou_top20": 0.7, "topk_20": 0.6, "spearman": 0.5}
    saved = {"success_8bit": success_8bit, "l1_8bit": l1_8bit}
    return made(
        image_id=image_id,
        condition=Condition.parse(condition),
        interpreter=interpreter,
        label_given=label_given,
        excluded=excluded,
        success=success,
        confidence=confidence,
        confidence_8bit=confidence - 0.1,
        l1=l1,
        **{name: iou * share for name, share in shares.items()},
        **{f"{name}_8bit": iou_8bit * share for name, share in shares.items()},
        **{name: value for name, value in saved.items() if value is not None},
        **course,
    )


def controls(image_id: str, *, noise_l1: float = 0.05) -> list[Row]:
    return [row(image_id, "none"), row(image_id, "noise", l1=noise_l1, iou=0.9)]


# Four photos on one interpreter. a: all well. b: the attack loses its label in 8 bit. c: it never succeeds,
# and its map would spoil every mean. d: it succeeds, its map neither kept nor within noise. e is excluded.
PLANTED = [
    *controls("a"),
    row("a", "pgd", success=True, l1=0.30, iou=0.2, confidence=1.0),
    row("a", "adv2-cam", success=True, l1=0.04, iou=0.8, confidence=0.9),
    *controls("b"),
    row("b", "pgd", success=True, l1=0.20, iou=0.6, confidence=0.8),
    row("b", "adv2-cam", success=True, success_8bit=False, l1=0.02, iou=0.9, confidence=0.7),
    *controls("c"),
    row("c", "pgd", success=True, l1=0.40, iou=0.1, confidence=0.9),
    row("c", "adv2-cam", success=False, l1=0.99, iou=1.0, confidence=0.1),
    *controls("d", noise_l1=0.01),
    row("d", "pgd", success=False, l1=0.0, iou=1.0, confidence=0.2),
    row("d", "adv2-cam", success=True, l1=0.12, iou=0.4, confidence=0.8, label_given=False),
    row("e", "none", excluded="misclassified", label_given=False, l1=0.77),
]


def transfer_rows() -> list[Row]:
    """One photo, three interpreters, attacked on cam, on grad, and on both."""
    l1 = {
        "adv2-cam": {"cam": 0.01, "grad": 0.22, "ig": 0.23},
        "adv2-grad": {"cam": 0.21, "grad": 0.02, "ig": 0.24},
        "adv2-cam+grad": {"cam": 0.05, "grad": 0.06, "ig": 0.25},
        "pgd": {"cam": 0.31, "grad": 0.32, "ig": 0.33},
    }
    return [
        row("a", condition, interpreter, success=True, l1=value, confidence=0.9)
        for condition, cells in l1.items()
        for interpreter, value in cells.items()
    ]
