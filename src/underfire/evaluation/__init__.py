"""The benchmark of detectors: candidates, the attackers that try to evade them, benign corruptions, results."""
