"""The claims of the paper's discussion, each tested on the user's own model: transfer, bound, frontier, gap."""
