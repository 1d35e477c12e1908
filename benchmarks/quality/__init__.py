"""Quality against passes: how near each attack brings each map, for what budget."""
