"""Tests of the arithmetic, as plain assertions: `tests/bench.sh --self`."""

from __future__ import annotations

from .figures import Figure, Key, Rounds


def medians_are_over_rounds_and_ratios_over_medians() -> None:
    rounds = Rounds(["ours", "theirs"])
    for value in (10.0, 30.0, 20.0):
        rounds.add("ours", [Figure("create", "1/s", value)])
    rounds.add("theirs", [Figure("create", "1/s", 5.0)])
    key = Key("create", "1/s")
    assert rounds.median(key, "ours") == 20
    assert rounds.ratio(key, "theirs") == 4


def fewer_seconds_are_better() -> None:
    rounds = Rounds(["ours", "theirs"])
    rounds.add("ours", [Figure("untar", "s", 2.0)])
    rounds.add("theirs", [Figure("untar", "s", 6.0)])
    assert rounds.ratio(Key("untar", "s"), "theirs") == 3


def a_file_system_without_a_figure_has_a_gap() -> None:
    rounds = Rounds(["ours", "theirs"])
    rounds.add("ours", [Figure("untar", "s", 2.0)])
    assert rounds.ratio(Key("untar", "s"), "theirs") is None
    assert rounds.table().rows == [("untar", "s", "2.00", "-", "-", "")]


def cpu_time_is_shown_for_each_unit_of_work() -> None:
    rounds = Rounds(["ours"])
    rounds.add("ours", [Figure("create", "1/s", 500.0, "file", 0.5)])
    assert rounds.table().rows == [("create", "1/s", "500", "0.50 ms a file")]


def run() -> None:
    tests = [medians_are_over_rounds_and_ratios_over_medians, fewer_seconds_are_better,
             a_file_system_without_a_figure_has_a_gap, cpu_time_is_shown_for_each_unit_of_work]
    for test in tests:
        test()
    print(f"{len(tests)} tests of the benchmark's arithmetic passed")
