"""Where the ring has to keep a chunk, computed a second time and independently of the nodes. Pure.

The key of a chunk is the low 32 bits of MD5 over its name; its owner is the first node at or after the key, and the
next two nodes keep copies. This holds for nodes without zones and on different addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

CIRCLE = 1 << 32
COPIES = 3


def key_of(chunk: str) -> int:
    return int.from_bytes(hashlib.md5(chunk.encode()).digest()[-4:], "big")


def holders(key: int, positions: Mapping[str, int]) -> list[str]:
    """The nodes that have to hold the key, its owner first. `positions` gives each node's place on the circle."""
    clockwise = sorted(positions, key=lambda node: (positions[node] - key) % CIRCLE)
    return clockwise[:COPIES]


def stored(listing: str) -> dict[str, int]:
    """What `storage-node ls` printed, as the bytes of each chunk: lines of NAME BYTES VERSION; a name may hold spaces."""
    lines = [line.rsplit(" ", 2) for line in listing.splitlines()]
    return {name: int(size) for name, size, _ in lines}


def differences(chunks: Sequence[str], positions: Mapping[str, int], kept: Mapping[str, Mapping[str, int]]) -> list[str]:
    """In words, how what the nodes keep differs from what they have to keep; empty when all is in its place."""
    found = []
    for chunk in chunks:
        expected, actual = set(holders(key_of(chunk), positions)), {node for node in kept if chunk in kept[node]}
        if expected != actual:
            found.append(f"{chunk} is at {sorted(actual)} and belongs to {sorted(expected)}")
        if len({kept[node][chunk] for node in actual}) > 1:
            found.append(f"the copies of {chunk} differ in length")
    return found
