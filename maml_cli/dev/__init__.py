"""Tools of the developers: the published results, the benchmark and the generated pages; not in the wheel."""
