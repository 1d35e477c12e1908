"""The parts of MASK: the composite that a mask makes, the objective, the fit, and the attack on it."""
