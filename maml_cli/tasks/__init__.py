"""Task families: distributions over functions, samplers of their points, and predictors that need no meta-learning."""
