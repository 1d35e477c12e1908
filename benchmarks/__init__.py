"""Side-by-side measurements: what a step of an attack costs, and how underfire compares with its peers.

``python -m benchmarks`` prints the tables. Everything is a ratio of two things that were measured in turn in one run,
since seconds belong to one machine on one day.
"""
