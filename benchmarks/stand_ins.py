"""What the other libraries import on loading and nothing here uses."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.stand_ins import torchvision_operators


def importable() -> None:
    """Lets torchvision be imported where its compiled operators don't load, and adv-lib without its plotting client."""
    torchvision_operators()
    if "visdom" not in sys.modules and importlib.util.find_spec("visdom") is None:
        sys.modules["visdom"] = ModuleType("visdom")
