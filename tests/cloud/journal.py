"""The events of the cloud, in order. Scenarios wait for them instead of sleeping, and failures print them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """`at` is in seconds of the machine's monotonic clock."""

    at: float
    kind: str
    details: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} " + " ".join(f"{name}={value}" for name, value in self.details.items())


class Journal:
    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._start = time.monotonic()
        self._echo = echo

    def record(self, kind: str, **details: Any) -> Event:
        event = Event(time.monotonic(), kind, details)
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
        if self._echo:
            self._echo(self.line(event))
        return event

    def line(self, event: Event) -> str:
        return f"{event.at - self._start:7.2f} {event}"

    def events(self, kind: str, since: float = 0.0, **details: Any) -> list[Event]:
        """The events of a kind from `since` on that have all the given details."""
        with self._changed:
            return [event for event in self._events if event.at >= since and _fits(event, kind, details)]

    def wait(self, kind: str, seconds: float, since: float = 0.0, **details: Any) -> Event:
        """Returns the first such event; waits if it has not happened yet."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for event in self._events:
                    if event.at >= since and _fits(event, kind, details):
                        return event
                if not self._changed.wait(end - time.monotonic()):
                    raise TimeoutError(f"no {kind} {details or ''} within {seconds:.0f} s")

    def lines(self) -> list[str]:
        with self._changed:
            return [self.line(event) for event in self._events]


def _fits(event: Event, kind: str, details: dict[str, Any]) -> bool:
    return event.kind == kind and all(event.details.get(name) == value for name, value in details.items())
