"""Damage bytes in a way that is the same in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator

_EDGES = (0x00, 0x01, 0x7F, 0x80, 0xFF)


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged copies: bytes flipped, set to an edge, cut out or cut off."""
    source = random.Random(seed)  # noqa: S311 (the same damage in every run)
    for _ in range(count):
        damaged = bytearray(data)
        for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
            at = source.randrange(len(damaged))
            match source.randrange(8):
                case 0:
                    damaged[at] = source.choice(_EDGES)
                case 1:
                    damaged[at : at + 4] = source.randbytes(4)[: len(damaged) - at]
                case 2:
                    damaged[at] ^= 1 << source.randrange(8)
                case _:
                    damaged[at] = source.randrange(256)
        if source.randrange(16) == 0 and len(damaged) > 1:
            del damaged[source.randrange(1, len(damaged)) :]
        yield bytes(damaged)
