"""Loads of one large file: sequential and random reads and writes."""

from __future__ import annotations

import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .target import Bench

MIB = 1 << 20
PAGE = 4096
READERS = 16


def large_file(bench: Bench) -> None:
    size, file = bench.scale.bytes, bench.folder / "large"
    # Random bytes are made before, so that their making is not measured.
    piece = memoryview(os.urandom(16 * MIB))
    bench.throughput("sequential write and fsync", size, lambda: write_sequentially(file, piece, size))
    bench.target.go_cold()
    bench.throughput("sequential read, cold", size, lambda: read_sequentially(file, size))
    bench.target.go_cold()
    bench.throughput("cat, cold", size, lambda: cat(file))
    bench.target.go_cold()
    reads = bench.scale.files
    bench.rate("random 4 KiB read, cold, 1 thread", reads, lambda: read_randomly(file, size, reads, seed=1))
    bench.target.go_cold()
    of_all = reads * 2 // READERS * READERS
    bench.rate("random 4 KiB read, cold, 16 threads", of_all, lambda: read_in_threads(file, size, of_all))
    writes = bench.scale.files
    bench.rate("random 4 KiB write, one fsync", writes, lambda: write_randomly(file, size, writes, every=False))
    writes = bench.scale.synced_operations
    bench.rate("random 4 KiB write, fsync each", writes, lambda: write_randomly(file, size, writes, every=True))


def write_sequentially(file: Path, piece: memoryview, size: int) -> None:
    with open(file, "wb", buffering=0) as out:
        for start in range(0, size, MIB):
            at = start % len(piece)
            out.write(piece[at:at + MIB])
        os.fsync(out.fileno())


def read_sequentially(file: Path, size: int) -> None:
    buffer, total = bytearray(MIB), 0
    with open(file, "rb", buffering=0) as source:
        while count := source.readinto(buffer):
            total += count
    expect_size(total, size)


def cat(file: Path) -> None:
    with open(os.devnull, "wb") as nowhere:
        # A pipe keeps cat from copying inside the kernel.
        subprocess.run(["sh", "-c", 'cat "$0" | cat', file], stdout=nowhere, check=True, timeout=600)


def read_randomly(file: Path, size: int, count: int, seed: int) -> None:
    source = random.Random(seed)
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(count):
            expect_size(len(os.pread(handle, PAGE, source.randrange(size // PAGE) * PAGE)), PAGE)
    finally:
        os.close(handle)


def read_in_threads(file: Path, size: int, count: int) -> None:
    with ThreadPoolExecutor(READERS) as pool:
        jobs = [pool.submit(read_randomly, file, size, count // READERS, seed) for seed in range(READERS)]
        for job in jobs:
            job.result(timeout=600)


def write_randomly(file: Path, size: int, count: int, every: bool) -> None:
    source, content = random.Random(3), os.urandom(PAGE)
    handle = os.open(file, os.O_WRONLY)
    try:
        for _ in range(count):
            os.pwrite(handle, content, source.randrange(size // PAGE) * PAGE)
            if every:
                os.fsync(handle)
        os.fsync(handle)
    finally:
        os.close(handle)


def expect_size(found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"read {found} of {wanted} bytes")
