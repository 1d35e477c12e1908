"""Where classifiers come from: built-in weights, model libraries, a user's function; safe checkpoints."""

from underfire.models.checkpoints import load_checkpoint
from underfire.models.class_names import read_class_names
from underfire.models.load import DEFAULT_MODEL, load_classifier
from underfire.models.sources import Source, available

__all__ = ["DEFAULT_MODEL", "Source", "available", "load_checkpoint", "load_classifier", "read_class_names"]
