"""torchvision where its compiled operators do not load: its import needs stand-ins, its models none."""

import functools
import importlib.util
from pathlib import Path

import torch


@functools.cache
def torchvision_operators() -> torch.library.Library | None:
    """Defines the stand-ins where they are needed; they are there as long as what is returned, which is kept."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _compiled_operators_load(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _compiled_operators_load(folder: Path) -> bool:
    for file in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(file)
        except OSError:
            return False
        return hasattr(torch.ops.torchvision, "nms")
    return False
