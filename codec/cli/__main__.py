"""`python -m codec.cli` is the command `codec`."""

import sys

from codec.cli.main import main

sys.exit(main())
