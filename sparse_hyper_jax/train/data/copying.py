"""A task with a known lag: tell symbols again, in the order in which they were read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class TokenSequences(NamedTuple):
    """What is read and what is to be told, step by step, sequences side by side.

    Attributes:
        inputs: ``(T, B)`` int32, from 0 to the number of ``tokens``, exclusive.
        targets: ``(T, B)`` int32, likewise.
    """

    inputs: np.ndarray
    targets: np.ndarray


def copy_sequences(
    generator: np.random.Generator, *, length: int, batch: int, symbols: int, delays: range
) -> TokenSequences:
    """Draw sequences of blocks: m symbols, then m times the token that asks for them again.

    In the second half of a block the target is the symbol m steps before, in the first half it is
    the token ``symbols``, which is also the input of the second half. So the delay is exactly m; a
    block has its own, drawn from ``delays``, and sequences begin anywhere in a block.

    Args:
        generator: of NumPy.
        length: T, steps.
        batch: B, sequences.
        symbols: how many there are, 0 to ``symbols - 1``; there are ``symbols + 1`` tokens.
        delays: what m may be.

    Returns:
        :class:`TokenSequences`.
    """
    rows = [_row(generator, length, symbols, delays) for _ in range(batch)]
    inputs, targets = (np.stack(part, axis=1).astype(np.int32) for part in zip(*rows, strict=True))
    return TokenSequences(inputs, targets)


def copy_parts(
    seed: int, lengths: Sequence[int], *, batch: int, symbols: int, delays: range
) -> list[TokenSequences]:
    """Draw independent parts of these lengths, for training and for what is held out."""
    return [
        copy_sequences(
            np.random.default_rng((seed, number)),
            length=length,
            batch=batch,
            symbols=symbols,
            delays=delays,
        )
        for number, length in enumerate(lengths)
    ]


def _row(
    generator: np.random.Generator, length: int, symbols: int, delays: range
) -> tuple[np.ndarray, np.ndarray]:
    begin = int(generator.integers(2 * delays[-1]))
    inputs: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    written = 0
    while written < begin + length:
        delay = delays[int(generator.integers(len(delays)))]
        drawn, other = generator.integers(symbols, size=delay), np.full(delay, symbols)
        inputs += [drawn, other]
        targets += [other, drawn]
        written += 2 * delay
    cut = slice(begin, begin + length)
    return np.concatenate(inputs)[cut], np.concatenate(targets)[cut]
