"""Training of interpreters that learn."""
