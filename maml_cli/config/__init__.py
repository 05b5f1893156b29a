"""What the user wrote: the schema of a config, strict YAML, constraints, messages and presets, without PyTorch."""
