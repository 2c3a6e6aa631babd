"""What reproduces the papers: demo, benchmarks, tables, plots."""
