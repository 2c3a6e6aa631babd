"""`python -m experiments.tables` makes the papers' tables."""

import sys

from codec.training.faults import user_errors
from experiments.tables.make import main

if __name__ == "__main__":
    with user_errors():
        sys.exit(main())
