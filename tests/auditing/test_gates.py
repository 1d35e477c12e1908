"""Gates: how they are written, and when an audit fails by them."""

import pytest

from support.planted_rows import PLANTED, controls, row, transfer_rows
from underfire.auditing.gates import RULES, Gate, GateCheck, failures, parse_gate, tried
from underfire.auditing.rows import Row
from underfire.auditing.summary import Summary
from underfire.auditing.tally import summarise
from underfire.errors import InputError


def failed(summary: Summary, gates: list[Gate]) -> list[str]:
    return failures(tried(summary, gates))


@pytest.fixture(scope="module")
def planted() -> Summary:
    return summarise(PLANTED)


@pytest.mark.parametrize(
    ("expression", "gate"),
    [
        ("iou>0.5", Gate("iou", ">", 0.5)),
        (" kept >= 1 ", Gate("kept", ">=", 1.0)),
        ("l1<1e-2", Gate("l1", "<", 0.01)),
        ("asr<=.9", Gate("asr", "<=", 0.9)),
    ],
)
def test_gates_are_read(expression: str, gate: Gate) -> None:
    assert parse_gate(expression) == gate
    assert parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    "expression",
    [
        *("", "iou", "iou>", ">0.5", "iou=0.5", "iou==0.5", "iou>>0.5", "iou>nan", "iou>inf", "iou>half"),
        *("IOU>0.5", "l2>1", "iou>0.5 l1<1", "iou>0.5;rm", "__class__>0", "iou_50_8bit>0"),
    ],
)
def test_other_expressions_are_quoted_with_what_is_possible(expression: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_gate(expression)
    message = str(caught.value)
    assert message.startswith(f"{expression!r} is not a gate")
    assert all(word in message for word in ("asr", "confidence", "iou_top20", "kept", ">=", "'iou>0.5'"))


@pytest.mark.parametrize(
    ("metric", "value"),
    [  # of adv2-cam on cam, 8-bit: successes a and d
        ("asr", 0.5),
        ("kept", 0.25),
        ("confidence", 0.75),
        ("l1", 0.08),
        ("iou", 0.6),
        ("iou_25", 0.54),
        ("iou_75", 0.48),
        ("iou_top20", 0.42),
    ],
)
def test_a_gate_looks_at_the_diagonal_on_the_eight_bit_image(planted: Summary, metric: str, value: float) -> None:
    below, above = parse_gate(f"{metric}>{value - 1e-6}"), parse_gate(f"{metric}>{value + 1e-6}")
    (failure,) = failed(planted, [above, below])
    assert failure.startswith(f"{below}: cam has {metric} {value:.3g} (n = ")
    assert failed(planted, [parse_gate(f"{metric}<{value - 1e-6}")]) == []


@pytest.mark.parametrize(
    ("expression", "fails"), [("asr>0.5", False), ("asr>=0.5", True), ("asr<0.5", False), ("asr<=0.5", True)]
)
def test_a_gate_at_its_threshold(planted: Summary, expression: str, fails: bool) -> None:
    assert bool(failed(planted, [parse_gate(expression)])) is fails


def test_a_gate_is_tried_on_every_interpreter() -> None:
    found = failed(summarise(transfer_rows()), [parse_gate("l1>0.015"), parse_gate("l1>0")])
    assert [failure.split(" has ")[0] for failure in found] == [
        "l1>0.015: grad",
        "l1>0: cam",
        "l1>0: grad",
    ]


def test_an_attack_that_never_succeeds_passes_a_gate_on_its_maps() -> None:
    summary = summarise([row("a", "adv2-cam", success=False, iou=1.0)])
    assert failed(summary, [parse_gate("iou>0.5"), parse_gate("kept>0"), parse_gate("l1<1")]) == []
    assert failed(summary, [parse_gate("asr<0.5")]) == ["asr<0.5: cam has asr 0 (n = 1)."]


@pytest.mark.parametrize("rows", [[], controls("a"), [row("a", "pgd", success=True)]])
def test_a_gate_that_nothing_was_attacked_for_fails(rows: list[Row]) -> None:
    found = failed(summarise(rows), [parse_gate("iou>0.5")])
    assert found == ["iou>0.5 could not be checked: no interpreter was attacked."]


def test_gates_that_pass_are_told_too(planted: Summary) -> None:
    checks = list(tried(planted, [parse_gate("kept>0.2"), parse_gate("asr>0.9")]))
    assert [(c.rule, c.condition, c.interpreter, c.outcome) for c in checks] == [
        ("kept", "kept>0.2", "cam", "failed"),
        ("asr", "asr>0.9", "cam", "passed"),
    ]
    assert [(c.figure.value, c.figure.n) for c in checks] == [(0.25, 4), (0.5, 4)]
    (nothing,) = tried(summarise([]), [parse_gate("iou>0.5")])
    assert nothing == GateCheck("iou", "iou>0.5", None, nothing.figure, "unchecked", nothing.sentence)
    never = summarise([row("a", "adv2-cam", success=False, iou=1.0)])
    (check,) = tried(never, [parse_gate("iou>0.5")])
    assert (check.outcome, check.figure.value) == ("passed", None)
    assert {c.rule for c in checks} <= set(RULES)
