"""What the numbers depend on: printed above every run."""

import datetime
import os
import platform
from pathlib import Path

import torch

import underfire


def header() -> str:
    """Date, versions, machine and its load, as Markdown."""
    lines = [
        "## underfire benchmarks",
        "",
        f"* {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, underfire {underfire.__version__}",
        f"* {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}",
        f"* torch {torch.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    ]
    if torch.cuda.is_available():
        tf32 = torch.backends.cudnn.allow_tf32
        lines.append(f"* {torch.cuda.get_device_name()}, TF32 in convolutions {'allowed' if tf32 else 'off'}")
    return "\n".join([*lines, ""])


def _processor() -> str:
    """Its name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
