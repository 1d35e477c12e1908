"""A run directory → one self-contained HTML file."""

from underfire.report.build import REPORT, build_report

__all__ = ["REPORT", "build_report"]
