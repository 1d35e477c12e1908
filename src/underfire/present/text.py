"""How numbers, conditions and classes are written in the report."""

from collections.abc import Mapping, Sequence

from underfire.auditing.condition import Condition, has_title
from underfire.display import agreeing as agreeing
from underfire.display import plural as plural
from underfire.interpreters.registry import interpreter_title as interpreter_title
from underfire.stats import Estimate, Share

_NOTHING = "–"


def style_of(attack: str) -> str:
    """The CSS class of a condition's colour; an attack the page knows nothing of gets none."""
    return attack if has_title(attack) else ""


def class_title(index: int, names: Mapping[str, str]) -> str:
    """The readable name of class ``index``, or its number."""
    name = names.get(str(index), "").strip()
    return name or f"class {index}"


def percent(share: float) -> str:
    """``97 %``; near the ends with one decimal, so that 99.6 % does not read as certainty."""
    digits = 1 if 0 < share < 0.0095 or 0.9905 < share < 1 else 0
    return f"{100 * share:.{digits}f} %"


def budget(eps: float, norm: str) -> str:
    """``8/255`` where a change of pixel values is a whole number of grey levels, a number elsewhere, or pixels."""
    return amount(eps, norm) + (f" {agreeing(eps, 'pixel', 'pixels')}" if norm == "flow" else "")


def amount(eps: float, norm: str) -> str:
    """`budget` without its unit, as command lines take it."""
    levels = eps * 255
    whole = norm not in ("l2", "flow") and abs(levels - round(levels)) < 1e-6 and levels >= 1
    return f"{levels:.0f}/255" if whole else f"{eps:.4g}"


def limit(eps: float, norm: str) -> str:
    """What the budget forbids, to begin a sentence with."""
    amount = budget(eps, norm)
    if norm == "flow":
        return f"With no pixel moved by more than {amount}"
    if norm == "l2":
        return f"With all changes of an image together no longer than {amount} (L2 norm, pixels from 0 to 1)"
    return f"With no pixel changed by more than {amount}"


def of(rate: Share, noun: str = "") -> str:
    """``9 of 10``, or ``9 of 10 photos`` where there is a ``noun``."""
    return f"{rate.k} of {plural(rate.n, noun) if noun else rate.n}"


def interval(rate: Share) -> str:
    """``60–98 %``, or a dash where there is none."""
    if rate.low is None or rate.high is None:
        return _NOTHING
    return f"{100 * rate.low:.0f}–{100 * rate.high:.0f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals, or a dash where there is none."""
    return _NOTHING if value is None else f"{value:.{digits}f}"


def spread(mean: Estimate, digits: int = 3) -> str:
    """The interval of a mean, ``0.028–0.036``, or a dash where there is none."""
    if mean.low is None or mean.high is None:
        return _NOTHING
    return f"{mean.low:.{digits}f}–{mean.high:.{digits}f}"


def listing(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def estimate(figure: Estimate, digits: int = 3) -> str:
    """``0.028 (0.020 to 0.036, n = 12)``, without an interval where there is none."""
    if figure.value is None:
        return f"{_NOTHING} (n = 0)"
    value = f"{figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return f"{value} (n = {figure.n})"
    return f"{value} ({figure.low:.{digits}f} to {figure.high:.{digits}f}, n = {figure.n})"


def signed(figure: Estimate, digits: int = 3) -> str:
    """A difference with its sign, ``-0.028 (-0.036 to -0.020)``, or a dash where there is none."""
    if figure.value is None:
        return _NOTHING
    value = f"{figure.value:+.{digits}f}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({figure.low:+.{digits}f} to {figure.high:+.{digits}f})"


def title(condition: str) -> str:
    """``adv2-cam`` as ADV² on CAM."""
    return Condition.parse(condition).title
