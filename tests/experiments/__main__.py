"""Experiments with a ring of real nodes on this machine; each writes a table (NAME.txt, NAME.csv) and a picture
(NAME.svg, NAME.png), with the conditions in both, and ends with 1 if something happened that must not."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import caching, conditions, faults, load, resizing, ring, scaler, self_test
from .report import Setup

EXPERIMENTS = {"load": load, "caching": caching, "faults": faults, "resizing": resizing, "ring": ring, "scaler": scaler}
BUILT = Path(os.environ.get("CARGO_TARGET_DIR") or conditions.ROOT / "target")
RELEASE, OUT = BUILT / "release", BUILT / "experiments"


def main() -> int:
    # On SIGTERM the nodes must end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    if options.self:
        return self_test.run()
    if options.programs is None:
        options.programs = built_release()
    if not os.access(options.programs / "storage-node", os.X_OK):
        sys.exit(f"error: {options.programs} has no program storage-node: build it, or name another folder by --programs")
    return run(options)


def run(options: argparse.Namespace) -> int:
    experiment = EXPERIMENTS[options.name]
    plan = experiment.SHORT if options.short else experiment.LONG
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"{options.name}{' (short)' if options.short else ''}: seed {seed}; {plan}", flush=True)
    observed = conditions.observe(options.programs, Path(tempfile.gettempdir()))
    begun = time.monotonic()
    report = experiment.run(Setup(options.programs.resolve(), seed), plan)
    if options.short:
        report.title += " (short form: too short for figures)"
    print(report.write(options.out, observed, seed, plan.repetitions))
    print(f"{options.name}: {len(report.problems)} problems, {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if report.problems else 0


def built_release() -> Path:
    """The folder of the release programs, which are built if they are missing."""
    if not (RELEASE / "storage-node").exists():
        manifest = str(conditions.ROOT / "Cargo.toml")
        if subprocess.run(["cargo", "build", "--release", "--manifest-path", manifest, "-p", "storage-node"]).returncode:
            sys.exit("error: storage-node does not build, see above; --programs FOLDER takes programs that exist")
    return RELEASE


def parse() -> argparse.Namespace:
    there = "\n".join(f"  {name:9}{module.SUMMARY}" for name, module in EXPERIMENTS.items())
    parser = argparse.ArgumentParser(
        prog="tests/experiments.sh",
        description=__doc__,
        epilog=f"experiments:\n{there}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--short", action="store_true", help="a form of seconds that shows that it works, without meaning")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="where the files go [%(default)s]")
    programs = f"where storage-node is [{RELEASE}, where it is built if it is missing]"
    parser.add_argument("--programs", type=Path, metavar="FOLDER", help=programs)
    parser.add_argument("--seed", type=int, metavar="N", help="seed of all random numbers [a new one, which is printed]")
    parser.add_argument("--self", action="store_true", help="test the arithmetic instead")
    options = parser.parse_args()
    if not options.self and options.name not in EXPERIMENTS:
        parser.error(f"name an experiment: {', '.join(EXPERIMENTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
