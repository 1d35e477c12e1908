"""Training of interpreters that learn, and of classifiers on noise."""
