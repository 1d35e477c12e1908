"""Where classifiers come from: built-in weights, model libraries, a user's function; safe checkpoints."""

from underfire.zoo.load import DEFAULT_MODEL, load_classifier
from underfire.zoo.sources import Source, available

__all__ = ["DEFAULT_MODEL", "Source", "available", "load_classifier"]
