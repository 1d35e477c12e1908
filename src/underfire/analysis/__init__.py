"""Whether the figures of an attack can be trusted: checks on the model, on the course of the attack and on its goal."""
