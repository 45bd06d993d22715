"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(what: str, seconds: float, condition: Callable[[], Value | None]) -> Value:
    """Returns the condition's first value that counts as true. What it raises as an OSError counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        last: object = None
        try:
            if value := condition():
                return value
        except OSError as error:
            last = error
        if time.monotonic() > deadline:
            reason = f": {last}" if last else ""
            raise TimeoutError(f"after {seconds:.0f} s still not: {what}{reason}")
        time.sleep(0.05)
