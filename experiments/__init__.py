"""What reproduces the papers: demo, benchmarks, tables, plots."""

import codec  # noqa: F401 - before torch: see there
