"""From a config to a run, and from a run to its figures: what `train.py` and `evaluate.py` do."""
