"""What reproduces the papers, and what measures the rest.

tables/   the papers' tables, one a file in tables/plans; BD-rates and means of any runs
plots/    a command a figure: quality over bpp, losses, pictures
release/  a finished run becomes weights that come with the package
bench/    time and memory
fuzz/     damaged and hostile files
data/     published figures; results/ holds ours, points.csv all points of them
"""

import codec  # noqa: F401 - before torch: see there
