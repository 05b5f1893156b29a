"""Trained runs on held-out tasks: errors after every inner step, baselines, intervals and comparisons."""
