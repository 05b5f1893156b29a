"""Ways to take outer steps, all with the same meta-gradient; the owner of all mutable training state."""
