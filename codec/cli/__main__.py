"""`python -m codec.cli` is the command `codec`."""

import sys

from codec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
