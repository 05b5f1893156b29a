"""Proofs on the user's machine that gradients are right: worked examples, finite differences, torch.func."""
