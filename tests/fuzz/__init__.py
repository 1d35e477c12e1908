"""A campaign against everything that is read from files and command lines: ``python -m fuzz --help``."""
