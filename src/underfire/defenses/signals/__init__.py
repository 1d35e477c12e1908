"""The signals of a detector: what is measured on images and their maps, one file each.

:data:`SIGNALS` is the table of those that a detector measures by default, in this order.
"""

from underfire.defenses.signals.agreed import Agreed
from underfire.defenses.signals.base import AttackableSignals, Signal, SignalInput, Signals
from underfire.defenses.signals.pairs import Pairs
from underfire.defenses.signals.shapes import Shapes
from underfire.defenses.signals.views import Views

SIGNALS: tuple[type[Signal], ...] = (
    Pairs,
    Shapes,
    Agreed,
    Views,
)

__all__ = ["SIGNALS", "Agreed", "AttackableSignals", "Pairs", "Shapes", "Signal", "SignalInput", "Signals", "Views"]
