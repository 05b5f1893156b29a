"""Tools of the developers, not in the wheel: the benchmark, the published results, generated pages."""
