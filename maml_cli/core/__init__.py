"""The method: pure functions from tensors to tensors, with PyTorch as their only dependency."""
