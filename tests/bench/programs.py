"""Loads of real programs: tar, git, rm, SQLite, and the way in which editors replace a file."""

from __future__ import annotations

import io
import os
import random
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

from .target import Bench

FOLDERS = 60


def tree(bench: Bench) -> None:
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        write_archive(archive.name, bench.scale.tree_files)
        files = bench.scale.tree_files
        bench.duration(f"untar {files} files", lambda: run("tar", "-xf", archive.name, "-C", bench.folder))
        bench.duration("rm -rf of the tree", lambda: run("rm", "-rf", bench.folder / "tree"))
        run("tar", "-xf", archive.name, "-C", bench.folder)
        bench.duration("git init, add, commit", lambda: commit_all(bench.folder / "tree"))
        bench.duration("rm -rf of the tree and its repository", lambda: run("rm", "-rf", bench.folder / "tree"))


def write_archive(path: str, files: int) -> None:
    source = random.Random(2)
    with tarfile.open(path, "w") as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"tree/d{number % FOLDERS}/f{number}")
            info.size = source.randrange(200, 16000)
            info.mtime = 1_000_000_000 + number
            tar.addfile(info, io.BytesIO(source.randbytes(info.size)))


def commit_all(folder: Path) -> None:
    run("git", "init", "-q", folder)
    run("git", "-C", folder, "add", ".")
    run("git", "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "all")


def replace_synced(bench: Bench) -> None:
    """Writes a new file, syncs it and renames it over the old one, as editors and package managers do."""
    count, final, new = bench.scale.synced_operations, bench.folder / "replaced", bench.folder / "replaced.new"

    def replace() -> None:
        for number in range(count):
            with open(new, "wb", buffering=0) as out:
                out.write(number.to_bytes(4, "big") * 1024)
                os.fsync(out.fileno())
            os.rename(new, final)

    bench.rate("write, fsync, rename over", count, replace)


def databases(bench: Bench) -> None:
    for journal in ("delete", "wal"):
        database, count = bench.folder / f"{journal}.db", bench.scale.synced_operations
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA journal_mode={journal}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")

            def insert() -> None:
                for number in range(count):
                    connection.execute("INSERT INTO t (text) VALUES (?)", (f"{number:0100}",))

            bench.rate(f"sqlite transactions, {journal}", count, insert, "transaction")


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, timeout=600)


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
