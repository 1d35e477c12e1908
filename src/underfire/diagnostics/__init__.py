"""Whether an attack or a model can be judged at all: signs of failed attacks, model checks, gradient masking."""

from underfire.diagnostics.model_checks import check_model

__all__ = ["check_model"]
