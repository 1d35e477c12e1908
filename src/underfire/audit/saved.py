"""Moved."""

from underfire.images.levels import from_8bit

__all__ = ["from_8bit"]
