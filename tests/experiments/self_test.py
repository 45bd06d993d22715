"""Tests of the arithmetic, as plain assertions: `tests/experiments.sh --self`."""

from __future__ import annotations

import math

from . import measuring, miss_rates, placement, plans, pool_clients, stages, voters
from .tables import Table


def quantiles_are_values_that_occurred() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert measuring.quantile(ordered, 0.5) == 50
    assert measuring.quantile(ordered, 0.99) == 99
    assert measuring.quantile([7.0], 0.99) == 7
    assert measuring.quantile([1.0, 2.0], 0.99) == 2


def a_summary_is_in_milliseconds_and_needs_a_value() -> None:
    latencies = measuring.summarize([0.003, 0.001, 0.002])
    assert (latencies.count, latencies.p50_ms, latencies.p99_ms) == (3, 2, 3)
    assert math.isclose(latencies.mean_ms, 2)
    assert refuses(lambda: measuring.summarize([]))


def a_spread_is_that_of_a_sample() -> None:
    assert measuring.spread([5.0]) == measuring.Spread(5, 0)
    spread = measuring.spread([1.0, 3.0])
    assert spread.mean == 2 and math.isclose(spread.deviation, math.sqrt(2))
    assert spread.text(1) == "2.0 ± 1.4"


def a_gain_is_what_is_saved() -> None:
    assert measuring.gain_percent(75, 100) == 25
    assert measuring.gain_percent(110, 100) < 0


def keys_are_those_of_the_ring() -> None:
    # `md5sum` of this name ends with these eight digits.
    assert placement.key_of("seven_chunk_1") == 0x4f4908f3


def holders_follow_the_key_clockwise() -> None:
    positions = {"a": 10, "b": 20, "c": 30, "d": 40}
    assert placement.holders(15, positions) == ["b", "c", "d"]
    assert placement.holders(20, positions) == ["b", "c", "d"], "a node owns its own position"
    assert placement.holders(35, positions) == ["d", "a", "b"], "across zero"
    assert placement.holders(41, positions) == ["a", "b", "c"]
    assert placement.holders(15, {"a": 10}) == ["a"]


def copies_in_wrong_places_and_of_other_lengths_are_found() -> None:
    positions = {"a": 1 << 30, "b": 2 << 30, "c": 3 << 30, "d": 4 << 30}
    here = placement.holders(placement.key_of("x_chunk_1"), positions)
    right = {node: {"x_chunk_1": 9} if node in here else {} for node in positions}
    assert placement.differences(["x_chunk_1"], positions, right) == []
    surplus = {node: {"x_chunk_1": 9} for node in positions}
    assert len(placement.differences(["x_chunk_1"], positions, surplus)) == 1
    assert len(placement.differences(["x_chunk_1"], positions, {**right, here[0]: {}})) == 1
    assert len(placement.differences(["x_chunk_1"], positions, {**right, here[0]: {"x_chunk_1": 8}})) == 1


def listings_may_have_names_with_spaces() -> None:
    assert placement.stored("a b_chunk_1 4096 7\nc_chunk_2 5 1\n") == {"a b_chunk_1": 4096, "c_chunk_2": 5}


def pauses_double_up_to_the_longest() -> None:
    rule = plans.RetryRule(first_pause_seconds=0.1, longest_pause_seconds=1.0)
    assert [rule.pause(failures) for failures in (1, 2, 3, 9, 10_000)] == [0.1, 0.2, 0.4, 1.0, 1.0]


def a_seed_decides_everything() -> None:
    order = plans.shuffled_kinds(("read", "write"), 50, seed=1)
    assert order == plans.shuffled_kinds(("read", "write"), 50, seed=1)
    assert order != plans.shuffled_kinds(("read", "write"), 50, seed=2)
    assert (order.count("read"), order.count("write")) == (50, 50)
    assert plans.follow_ups(9, 0.5, seed=1) == plans.follow_ups(9, 0.5, seed=1)


def probabilities_of_follow_ups_are_kept() -> None:
    assert not any(plans.follow_ups(1000, 0.0, seed=3))
    assert all(plans.follow_ups(1000, 1.0, seed=3))
    assert 700 < sum(plans.follow_ups(1000, 0.8, seed=3)) < 900


def sides_take_turns() -> None:
    assert {plans.turns(0), plans.turns(1)} == {("on", "off"), ("off", "on")}
    assert plans.turns(2) == plans.turns(0)


def a_follower_dies_and_is_back_before_the_leader_dies() -> None:
    steps = plans.fault_steps(1000)
    assert [(step.operation, step.text()) for step in steps] == [
        (150, "follower killed"), (350, "follower back"), (550, "leader killed"), (750, "leader back"),
    ]


def namespaces_that_differ_are_found() -> None:
    one, two = {"k": ("1", "tag")}, {"k": ("1", "other")}
    assert voters.equal_names({"a": one, "b": dict(one)}, 1) == []
    assert len(voters.equal_names({"a": one, "b": two}, 1)) == 1
    assert len(voters.equal_names({"a": one, "b": {}}, 1)) == 1
    assert len(voters.equal_names({"a": {}, "b": {}}, 1)) == 1, "equal and incomplete"


def change_counters_are_compared_from_their_least_one() -> None:
    before = {"a": ("1", '"2-12"', "now"), "b": ("1", '"4-15"', "now")}
    moved = {"a": ("1", '"2-1be87602b12"', "now"), "b": ("1", '"4-1be87602b15"', "now")}
    other = {"a": ("1", '"2-1be87602b12"', "now"), "b": ("1", '"4-1be87602b16"', "now")}
    assert voters.relative(before) == voters.relative(moved)
    assert voters.relative(before) != voters.relative(other)
    assert voters.relative({}) == {}


def a_small_ring_is_whole_if_no_holder_lacks_a_copy() -> None:
    none, held = {"count": 0, "first": []}, {"count": 1, "first": [{"chunk": "k", "nodes": []}]}
    lacking = {"count": 1, "first": [{"chunk": "k", "nodes": ["10.0.0.1:5057"]}]}
    found = {"verified": True, "nodes": 2, "surplus_copies": 0, "under_replicated": held}
    found |= {kind: none for kind in ("missing", "damaged", "unreachable")}
    assert voters.unlike_whole(found, 2) == ""
    assert voters.unlike_whole(found | {"under_replicated": held | {"count": 1002}}, 2) == "", "most are only counted"
    assert voters.unlike_whole(found, 1) == "2 of 1 nodes were checked"
    assert voters.unlike_whole(found | {"nodes": 3}, 3) == "1 without a copy"
    assert voters.unlike_whole(found | {"under_replicated": lacking}, 2) == "1 without a copy"
    assert voters.unlike_whole(found | {"missing": lacking, "surplus_copies": 4}, 2) == "1 missing, 4 surplus"


def tables_are_aligned_and_rows_are_whole() -> None:
    table = Table(("what", "ms"))
    table.add("read, cold", 1.5)
    assert table.text() == "what        ms\nread, cold  1.50\n"
    assert table.csv() == 'what,ms\n"read, cold",1.50\n'
    assert refuses(lambda: table.add("one cell"))


def pools_have_equally_many_sizes_and_change_by_one() -> None:
    sizes = plans.pool_sizes(stays=4, largest=3)
    assert sizes == {"stays": (4, 4, 4), "grows": (1, 2, 3), "shrinks": (3, 2, 1)}


def stages_follow_each_other_without_gaps() -> None:
    found = stages.stages(1, 0.0, 10.0, [stages.Change(1, 2, 3.0, 4.0), stages.Change(2, 3, 6.0, 9.0)])
    assert [stage.name for stage in found] == ["1", "1 to 2", "2", "2 to 3", "3"]
    assert [stage.ended for stage in found[:-1]] == [stage.begun for stage in found[1:]]
    assert (found[0].begun, found[-1].ended) == (0, 10)
    assert [stage.name for stage in stages.stages(4, 0.0, 1.0, [])] == ["4"]


def every_operation_is_of_one_stage() -> None:
    found = stages.stages(1, 0.0, 10.0, [stages.Change(1, 2, 3.0, 4.0)])
    samples = [stages.Sample(time, 0.1, 0, "") for time in (0.1, 3.0, 3.1, 4.0, 10.0)]
    assert [len(stage.of(samples)) for stage in found] == [2, 2, 1]


def rates_are_per_second_and_of_whole_intervals() -> None:
    ended = [10.1, 10.2, 10.6, 11.9]
    assert stages.rates(ended, begun=10.0, width=0.5) == [(0.25, 4.0), (0.75, 2.0), (1.25, 0.0)]
    assert stages.rates([], begun=10.0, width=0.5) == []


def a_moving_mean_looks_back_only() -> None:
    assert stages.moving_mean([4.0, 2.0, 6.0, 0.0], window=2) == [4, 3, 4, 3]


def members_that_serve_are_read_from_events() -> None:
    member = '{"id":%d,"ring":"10.0.0.%d:5057","files":%s,"state":"%s"}'
    members = [
        member % (1, 1, '"10.0.0.1:5058"', "up"), member % (2, 2, '"10.0.0.2:5058"', "unresponsive"),
        member % (3, 3, "null", "foreign"), member % (4, 4, '"10.0.0.4:5058"', "up"),
    ]
    line = f'data: {{"members":[{",".join(members)}]}}\n'.encode()
    assert pool_clients.serving(line) == ("10.0.0.1:5058", "10.0.0.4:5058")
    assert pool_clients.serving(b"event: members\n") == ()
    assert pool_clients.serving(b": keep-alive\n") == ()


def miss_rates_are_means_of_nodes_that_were_read_from() -> None:
    before = {"a": (10, 10), "b": (5, 5), "c": (100, 100)}
    after = {"a": (10, 20), "b": (8, 6), "c": (100, 100), "new": (0, 4)}
    assert math.isclose(miss_rates.miss_rate(before, after), (1 + 0.25 + 1) / 3)
    assert miss_rates.miss_rate(after, after) is None
    assert miss_rates.miss_rate({"a": (10, 20)}, {"a": (1, 1)}) == 0.5, "it was started again"


def counters_are_those_of_nodes_that_answer() -> None:
    ring = {"nodes": [{"address": "a", "cache": {"hits": 1, "misses": 2}}, {"address": "b", "cache": None}, {"address": "c"}]}
    assert miss_rates.counters(ring) == {"a": (1, 2)}


def a_pool_rests_after_settled_periods_of_one_size() -> None:
    period = lambda nodes, settled=True, rate=0.3: miss_rates.Period(1.0, nodes, nodes, settled, rate)  # noqa: E731
    assert miss_rates.is_at_rest([period(1), period(2), period(2)], 2, 2)
    assert not miss_rates.is_at_rest([period(2)], 2, 2)
    assert not miss_rates.is_at_rest([period(2), period(1)], 2, 2)
    assert not miss_rates.is_at_rest([period(2), period(2, settled=False)], 2, 2)
    assert not miss_rates.is_at_rest([period(2), period(2, rate=None)], 2, 2)


def rates_are_those_of_periods_without_a_change() -> None:
    sizes = [(1, 1, 0.9), (1, 2, 0.8), (2, 2, 0.6), (2, 2, None), (2, 2, 0.4)]
    periods = [miss_rates.Period(1.0, before, after, True, rate) for before, after, rate in sizes]
    assert miss_rates.rates_by_nodes(periods) == {1: [0.9], 2: [0.6, 0.4]}


def decisions_beyond_thresholds_and_limits_are_found() -> None:
    limits = miss_rates.Limits(smallest=1, largest=4, min_miss_rate=0.1, max_miss_rate=0.5)
    decision = lambda before, after, rate: miss_rates.Decision(0.0, before, after, rate, "why")  # noqa: E731
    right = [decision(1, 1, None), decision(1, 2, 0.6), decision(2, 4, 0.51), decision(4, 2, 0.09)]
    assert miss_rates.wrong_decisions(right, limits) == []
    for wrong in (decision(1, 2, 0.5), decision(2, 1, 0.1), decision(1, 2, None), decision(2, 1, None), decision(4, 8, 0.9)):
        assert len(miss_rates.wrong_decisions([wrong], limits)) == 1, wrong


def refuses(action: object) -> bool:
    try:
        action()
    except ValueError:
        return True
    return False


def run() -> int:
    tests = [
        quantiles_are_values_that_occurred,
        a_summary_is_in_milliseconds_and_needs_a_value,
        a_spread_is_that_of_a_sample,
        a_gain_is_what_is_saved,
        keys_are_those_of_the_ring,
        holders_follow_the_key_clockwise,
        copies_in_wrong_places_and_of_other_lengths_are_found,
        listings_may_have_names_with_spaces,
        pauses_double_up_to_the_longest,
        a_seed_decides_everything,
        probabilities_of_follow_ups_are_kept,
        sides_take_turns,
        a_follower_dies_and_is_back_before_the_leader_dies,
        namespaces_that_differ_are_found,
        change_counters_are_compared_from_their_least_one,
        a_small_ring_is_whole_if_no_holder_lacks_a_copy,
        tables_are_aligned_and_rows_are_whole,
        pools_have_equally_many_sizes_and_change_by_one,
        stages_follow_each_other_without_gaps,
        every_operation_is_of_one_stage,
        rates_are_per_second_and_of_whole_intervals,
        a_moving_mean_looks_back_only,
        members_that_serve_are_read_from_events,
        miss_rates_are_means_of_nodes_that_were_read_from,
        counters_are_those_of_nodes_that_answer,
        a_pool_rests_after_settled_periods_of_one_size,
        rates_are_those_of_periods_without_a_change,
        decisions_beyond_thresholds_and_limits_are_found,
    ]
    for test in tests:
        test()
    print(f"{len(tests)} tests of the experiments' arithmetic passed")
    return 0
