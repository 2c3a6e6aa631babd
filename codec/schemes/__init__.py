"""One file per scheme, readable top to bottom; no scheme imports another."""
