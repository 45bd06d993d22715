"""python -m cloud: runs scenarios one after the other, prints their figures and the failures.

Exits with 0 if all scenarios held. `--self` runs the harness's own tests instead.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Callable
from pathlib import Path

from .scenarios import (
    advertise,
    average,
    bad_input,
    chosen_size,
    crash,
    first_boot,
    five_at_once,
    floor,
    growth,
    heartbeat,
    scale_in,
    scaler,
    spot,
    zones,
)
from .scenarios.setup import Setup

SCENARIOS: dict[str, Callable[[Setup], None]] = {
    "first-boot": first_boot.run,
    "growth": growth.run,
    "growth-in-zones": growth.in_zones,
    "average": average.run,
    "five-at-once": five_at_once.run,
    "zones": zones.run,
    "advertise": advertise.run,
    "scale-in": scale_in.run,
    "crash": crash.run,
    "spot": spot.run,
    "heartbeat": heartbeat.run,
    "floor": floor.run,
    "chosen-size": chosen_size.run,
    "scaler": scaler.run,
    "bad-input": bad_input.run,
}
# One boot, many at once, a drain and a crash: what a change is most likely to break, in less than two minutes.
SHORT = ("first-boot", "five-at-once", "scale-in", "crash")
ROOT = Path(__file__).parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "debug"


def main() -> int:
    # On SIGTERM the instances must end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parse()
    if options.self:
        return self_test(options.short)
    for program in ("storage-node", "mount.chordfs"):
        if not os.access(options.binaries / program, os.X_OK):
            sys.exit(f"error: {options.binaries} has no {program}: build it, or name another folder by --binaries")
    setup = Setup(options.binaries.resolve(), options.rate, options.short, print if options.verbose else None)
    names = options.scenario or (SHORT if options.short else tuple(SCENARIOS))
    failed = [name for name in names if not held(name, setup)]
    print_figures(setup)
    print(f"{len(names) - len(failed)} scenarios held, {len(failed)} failed{': ' if failed else ''}{' '.join(failed)}")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/cloud.sh", description=__doc__)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=f"any of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--short", action="store_true", help=f"less in each scenario, and by default only {', '.join(SHORT)}")
    parser.add_argument("--binaries", type=Path, default=BUILT, help=f"where storage-node is [{BUILT}]")
    parser.add_argument("--rate", type=float, default=20.0, help="speed of the clock of alarms; 1 is real time [20]")
    parser.add_argument("--verbose", action="store_true", help="print events as they happen")
    parser.add_argument("--self", action="store_true", help="run the harness's own tests, with a node that keeps no data")
    options = parser.parse_args()
    unknown = set(options.scenario) - set(SCENARIOS)
    if unknown:
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    return options


def held(name: str, setup: Setup) -> bool:
    print(f"{name}", flush=True)
    begun = time.monotonic()
    try:
        SCENARIOS[name](setup)
    except Exception:  # Any failure: the scenarios after it are still worth running.
        traceback.print_exc()
        print(f"{name}: FAILED after {time.monotonic() - begun:.0f} s", flush=True)
        return False
    print(f"{name}: held, {time.monotonic() - begun:.0f} s", flush=True)
    return True


def print_figures(setup: Setup) -> None:
    for name, value, unit in setup.figures:
        print(f"{name} {value:.2f} {unit}")
    if setup.unused_rights:
        print(f"rights that no instance used here: {', '.join(sorted(setup.unused_rights))}")


def self_test(short: bool) -> int:
    pattern = "test_[!l]*.py" if short else "test_*.py"
    folder = Path(__file__).parent
    suite = unittest.defaultTestLoader.discover(str(folder / "checks"), pattern, str(folder.parent))
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
