"""A run directory → one self-contained HTML file."""

from underfire.report.build import build_report

__all__ = ["build_report"]
