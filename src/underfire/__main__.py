"""``python -m underfire`` is the same as ``underfire``."""

from underfire.cli import main

if __name__ == "__main__":
    main()
