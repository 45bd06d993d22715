"""Runs each load on each file system in turn, round after round, and prints the medians with their ratios."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import large_file, names, programs, self_test
from .figures import Rounds
from .target import Bench, Scale, Target

LOADS = {
    "names": names.small_files,
    "names8": names.small_files_of_eight,
    "tree": programs.tree,
    "replace": programs.replace_synced,
    "sqlite": programs.databases,
    "large": large_file.large_file,
}


def main() -> None:
    parser = arguments()
    args = parser.parse_args()
    if args.self:
        self_test.run()
        return
    if not args.targets:
        parser.error("name at least one mounted file system: NAME=FOLDER")
    scale = Scale(args.size_mib, args.files, args.tree_files, args.synced)
    rounds = Rounds([target.name for target in args.targets])
    for number in range(1, args.rounds + 1):
        for load in args.loads or LOADS:
            for target in args.targets:
                start = time.monotonic()
                rounds.add(target.name, figures(load, target, scale))
                print(f"round {number}: {load} on {target.name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    print(rounds.table().text(), end="")


def figures(load: str, target: Target, scale: Scale):
    bench = Bench(target, scale)
    programs.remove_all(bench.folder)
    bench.folder.mkdir()
    try:
        LOADS[load](bench)
    finally:
        programs.remove_all(bench.folder)
    return bench.figures


def target_of(text: str) -> Target:
    name, equals, rest = text.partition("=")
    folder, _, remount = rest.partition(",")
    if not (name and equals and Path(folder).is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER or NAME=FOLDER,COMMAND with an existing folder")
    return Target(name, Path(folder), remount or None)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("targets", nargs="*", type=target_of, metavar="NAME=FOLDER[,REMOUNT]",
                        help="a mounted file system, and a command that empties its caches by mounting it again")
    parser.add_argument("--load", dest="loads", action="append", choices=LOADS, help="only this load; may be repeated")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="medians are over N rounds (default 1)")
    parser.add_argument("--size-mib", type=int, default=1024, metavar="N", help="size of the large file")
    parser.add_argument("--files", type=int, default=5000, metavar="N", help="number of small files and of random reads")
    parser.add_argument("--tree-files", type=int, default=3000, metavar="N", help="number of files in the tree of tar and git")
    parser.add_argument("--synced", type=int, default=1000, metavar="N", help="number of operations with an fsync each")
    parser.add_argument("--self", action="store_true", help="test the arithmetic and do nothing else")
    return parser


main()
