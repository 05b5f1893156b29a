"""A training from start to stop: the outer loop, its log, signals, progress and resuming."""
