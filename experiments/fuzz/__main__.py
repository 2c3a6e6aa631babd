"""`python -m experiments.fuzz` reads mutations of all files that there are."""

import sys

from experiments.fuzz.fuzz import main

if __name__ == "__main__":
    sys.exit(main())
