"""What the maps of attacked images say about a model and its interpreters."""
