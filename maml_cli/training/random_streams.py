"""Random streams of a training: one generator for each run and purpose, saved as bytes and restored from them."""

import struct
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from maml_cli.errors import CheckpointError
from maml_cli.tasks import make_generator

_NUM_WORDS = 624
"""State words of the Mersenne Twister."""


def save_generators(generators: Sequence[Generator]) -> Tensor:
    """The states of `generators`, (R, size), bytes."""
    size = Generator().get_state().numel()
    return torch.stack([generator.get_state() for generator in generators]) if generators else _no_bytes(size)


def restore_generators(states: Tensor, seeds: Sequence[int], purpose: str) -> list[Generator]:
    """The generators that `save_generators` saved as `states`; those of `purpose` for the runs of `seeds`.

    Raises CheckpointError for states that a generator of that seed cannot have.
    """
    # set_state reads past the end of a row that is a view: torch 2.13 adds its offset twice.
    rows = [row.clone() for row in states]
    return [_restore(row, make_generator(seed, purpose)) for row, seed in zip(rows, seeds, strict=True)]


def _restore(state: Tensor, generator: Generator) -> Generator:
    """`generator` in `state`.

    torch stores the seed (8 bytes), the number of words left to draw (4), whether it is seeded (4) and the index of the
    next word (8). It verifies that each is in its range, not that both numbers agree: otherwise it would read past the
    end of the words. Before the first draw they are 1 and 0, later their sum is one more than the number of words.
    """
    seed, left, _, index = struct.unpack_from("<QiiQ", bytes(state.tolist()))
    if not (1 <= left <= _NUM_WORDS and ((left, index) == (1, 0) or left + index == _NUM_WORDS + 1)):
        raise CheckpointError("a random generator is in a state that does not exist")
    if seed != generator.initial_seed() % 2**64:
        raise CheckpointError("a random generator is not that of its seed")
    try:
        generator.set_state(state)
    except RuntimeError:
        raise CheckpointError("a random generator is in a state that does not exist") from None
    if not torch.equal(generator.get_state(), state):
        raise CheckpointError("a random generator is in a state that does not exist")
    return generator


def _no_bytes(size: int) -> Tensor:
    return torch.empty(0, size, dtype=torch.uint8)
