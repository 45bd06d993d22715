"""What clients do and when nodes die, as values made from a seed. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryRule:
    """How a client repeats a failed attempt: at the next node, after a pause that doubles, until its time is up."""

    attempt_seconds: float = 10.0
    first_pause_seconds: float = 0.05
    longest_pause_seconds: float = 1.0
    deadline_seconds: float = 60.0

    def pause(self, failures: int) -> float:
        """The pause after this many failed attempts, from 1."""
        return min(self.longest_pause_seconds, self.first_pause_seconds * 2 ** min(failures - 1, 20))

    def text(self) -> str:
        return (
            f"a failed attempt (no connection, no answer in {self.attempt_seconds:.0f} s, 408, 5xx) is repeated at the next"
            f" node after {1000 * self.first_pause_seconds:.0f} ms, doubling to {self.longest_pause_seconds:.0f} s;"
            f" lost after {self.deadline_seconds:.0f} s"
        )


def shuffled_kinds(kinds: tuple[str, ...], each: int, seed: int) -> list[str]:
    """So many operations of each kind, in an order of their own for each seed."""
    order = [kind for kind in kinds for _ in range(each)]
    random.Random(seed).shuffle(order)
    return order


def follow_ups(reads: int, probability: float, seed: int) -> list[bool]:
    """For each read, whether a write of what was read follows."""
    source = random.Random(seed)
    return [source.random() < probability for _ in range(reads)]


def turns(repetition: int) -> tuple[str, str]:
    """Which of two sides begins alternates, so that a drift of the machine counts for both."""
    return ("on", "off") if repetition % 2 == 0 else ("off", "on")


@dataclass(frozen=True)
class FaultStep:
    """Something that happens to a node as soon as so many operations have been done."""

    operation: int
    role: str
    killed: bool

    def text(self) -> str:
        return f"{self.role} {'killed' if self.killed else 'back'}"


def fault_steps(operations: int) -> list[FaultStep]:
    """First a follower of the namespace dies and comes back, then its leader."""
    moments = ((0.15, "follower", True), (0.35, "follower", False), (0.55, "leader", True), (0.75, "leader", False))
    return [FaultStep(round(share * operations), role, killed) for share, role, killed in moments]


def pool_sizes(stays: int, largest: int) -> dict[str, tuple[int, ...]]:
    """The numbers of nodes that each pool has, one after the other; in all of them equally many."""
    rising = tuple(range(1, largest + 1))
    return {"stays": (stays,) * largest, "grows": rising, "shrinks": rising[::-1]}
