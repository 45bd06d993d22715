"""Files in a mount whose every byte is known: from a name and a length alone, so nothing has to be remembered."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PIECE = 1 << 20
MIB = 1 << 20


class Damaged(AssertionError):
    """The mount gave other bytes than were written."""


class Files:
    """What has been written so far. `write` and `check` may run in different threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sizes: dict[str, int] = {}

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    def write(self, name: str, size: int) -> None:
        """Written and stored: fsync has returned."""
        with (self.folder / name).open("wb") as out:
            for piece in content(name, size):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        self._sizes[name] = size

    def check(self, name: str) -> None:
        size = self._sizes[name]
        found, wanted = hashlib.sha256(), hashlib.sha256()
        with (self.folder / name).open("rb") as source:
            while piece := source.read(PIECE):
                found.update(piece)
        for piece in content(name, size):
            wanted.update(piece)
        if found.digest() != wanted.digest():
            raise Damaged(f"{name}: {size} bytes were written, others were read")

    def check_all(self) -> None:
        for name in list(self._sizes):
            self.check(name)

    def names(self) -> list[str]:
        return list(self._sizes)


def content(name: str, size: int) -> Iterator[bytes]:
    source = random.Random(name)
    for at in range(0, size, PIECE):
        yield source.randbytes(min(PIECE, size - at))


class Background:
    """Work over and over in a thread until `stop`; the first failure is kept, and raised there."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._work, self._over = work, threading.Event()
        self.rounds = 0
        self.longest_seconds = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 120.0) -> None:
        self._over.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"an operation at the mount has not come back after {seconds:.0f} s")
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            try:
                self._work(self.rounds)
            except BaseException as error:
                self.failure = error
                return
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)
            self.rounds += 1
            self._over.wait(PAUSE_SECONDS)


# Ten rounds a second: enough that every moment of a change has a write and a read in it, and no disk is filled by them.
PAUSE_SECONDS = 0.1


def churn(files: Files) -> Background:
    """Writes a small file, reads an older one, over and over: what a program does while the group changes."""

    def round(number: int) -> None:
        files.write(f"live-{number:06}", 64 * 1024)
        names = files.names()
        files.check(names[random.Random(number).randrange(len(names))])

    return Background(round)
