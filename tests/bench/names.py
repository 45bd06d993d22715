"""Loads of many small files: creating, looking up, reading, renaming, removing, by one process and by eight."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

from .target import Bench

CONTENT = b"s" * 4096
PROCESSES = 8


def small_files(bench: Bench) -> None:
    count, folder = bench.scale.files, bench.folder / "one"
    folder.mkdir()
    bench.rate("create 4 KB files, 1 process", count, lambda: create(folder, count), "file")
    bench.target.go_cold()
    bench.rate("stat all, cold", count, lambda: stat_all(folder), "file")
    bench.target.go_cold()
    bench.rate("read all, cold, 1 process", count, lambda: read_all(folder, os.listdir(folder)), "file")
    bench.target.go_cold()
    bench.rate("read all, cold, 8 processes", count,
               lambda: in_processes(lambda part: read_all(folder, os.listdir(folder)[part::PROCESSES])), "file")
    bench.rate("rename", count, lambda: rename(folder, count))
    bench.rate("unlink, 1 process", count, lambda: remove(folder), "file")


def small_files_of_eight(bench: Bench) -> None:
    count = bench.scale.files // PROCESSES
    folders = [bench.folder / f"of-{part}" for part in range(PROCESSES)]
    for folder in folders:
        folder.mkdir()
    total = count * PROCESSES
    bench.rate("create 4 KB files, 8 processes", total,
               lambda: in_processes(lambda part: create(folders[part], count)), "file")
    bench.rate("unlink, 8 processes", total, lambda: in_processes(lambda part: remove(folders[part])), "file")




def create(folder: Path, count: int) -> None:
    for number in range(count):
        with open(f"{folder}/f{number}", "xb", buffering=0) as out:
            out.write(CONTENT)


def stat_all(folder: Path) -> None:
    for entry in os.listdir(folder):
        os.stat(f"{folder}/{entry}")


def read_all(folder: Path, entries: list[str]) -> None:
    for entry in entries:
        with open(f"{folder}/{entry}", "rb", buffering=0) as source:
            if source.read(len(CONTENT) + 1) != CONTENT:
                raise ValueError(f"{folder}/{entry} does not hold what was written")


def rename(folder: Path, count: int) -> None:
    for number in range(count):
        os.rename(f"{folder}/f{number}", f"{folder}/g{number}")


def remove(folder: Path) -> None:
    for entry in os.listdir(folder):
        os.unlink(f"{folder}/{entry}")


def in_processes(work: Callable[[int], None]) -> None:
    """Calls `work` with the number of each process, in as many processes."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(part,)) for part in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    failed = [worker.exitcode for worker in workers if worker.exitcode != 0]
    if failed:
        raise RuntimeError(f"{len(failed)} of {PROCESSES} processes failed: {failed}")
