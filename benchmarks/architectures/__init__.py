"""Which interpreters are right, refused and attackable on the architectures that people use, with random weights."""
