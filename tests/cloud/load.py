"""Files in a mount with known contents: name and length determine every byte, so nothing else must be kept."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PIECE = 1 << 20
MIB = 1 << 20


class Damaged(AssertionError):
    """The mount returned other bytes than were written."""


class Files:
    """The files written so far: `sizes` has the name and length of each."""

    def __init__(self, folder: Path, sizes: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = dict(sizes or {})

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())

    def write(self, name: str, size: int) -> None:
        """Writes a file; returns after its fsync."""
        with (self.folder / name).open("wb") as out:
            for piece in content(name, size):
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        self.sizes[name] = size

    def check(self, name: str) -> None:
        size = self.sizes[name]
        found, wanted = hashlib.sha256(), hashlib.sha256()
        with (self.folder / name).open("rb") as source:
            while piece := source.read(PIECE):
                found.update(piece)
        for piece in content(name, size):
            wanted.update(piece)
        if found.digest() != wanted.digest():
            raise Damaged(f"{name}: {size} bytes were written, others were read")

    def check_all(self) -> None:
        for name in list(self.sizes):
            self.check(name)

    def names(self) -> list[str]:
        return list(self.sizes)


def content(name: str, size: int) -> Iterator[bytes]:
    source = random.Random(name)
    for at in range(0, size, PIECE):
        yield source.randbytes(min(PIECE, size - at))


# Ten rounds a second: enough for a write and a read in every phase of a change, and too few to fill a disk.
PAUSE_SECONDS = 0.1


class Churn:
    """Load during a change of the group: writes a small file and reads an older one, over and over.

    It runs in a process of its own. A process that forks while it has a file of a mount open makes the child close that
    file; the close flushes, and waits while the ring handles a crash. So the harness must have no such file open.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.rounds = 0
        self.longest_seconds = 0.0
        command = [sys.executable, "-m", "cloud.load", str(files.folder), json.dumps(files.sizes)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def stop(self, seconds: float = 120.0) -> None:
        """Ends the load after the current round; raises the error of a failed operation."""
        try:
            told, problem = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise TimeoutError(f"an operation at the mount has not returned after {seconds:.0f} s") from None
        if self._process.returncode:
            raise AssertionError(f"an operation at the mount failed:\n{problem}")
        found = json.loads(told)
        self.rounds, self.longest_seconds = found["rounds"], found["longest_seconds"]
        self._files.sizes.update(found["sizes"])


def churn(folder: Path, sizes: dict[str, int]) -> None:
    """Runs until standard input is closed; then prints what it has done."""
    files, rounds, longest = Files(folder, sizes), 0, 0.0
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        begun = time.monotonic()
        files.write(f"live-{rounds:06}", 64 * 1024)
        names = files.names()
        files.check(names[random.Random(rounds).randrange(len(names))])
        longest, rounds = max(longest, time.monotonic() - begun), rounds + 1
    print(json.dumps({"rounds": rounds, "longest_seconds": longest, "sizes": files.sizes}))


if __name__ == "__main__":
    churn(Path(sys.argv[1]), json.loads(sys.argv[2]))
