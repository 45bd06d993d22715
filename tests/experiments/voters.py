"""Whether all voters have the same namespace, and all chunks their equal holders."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping

from .clients import Client
from .nodes import Node, Ring
from .placement import COPIES
from .waiting import wait_for

THREE_HOLDERS_SECONDS = 180.0
COMMAND_SECONDS = 600.0

# From each key to what the namespace says of its file.
Names = dict[str, tuple[str, str, str]]


def equal_names(names: Mapping[str, Names], keys: int) -> list[str]:
    """In words, what differs between namespaces and from the number of keys that there have to be. Pure."""
    (first, expected), *others = names.items()
    found = [] if len(expected) == keys else [f"{first} has {len(expected)} keys, not {keys}"]
    for place, other in others:
        different = {key for key in expected.keys() | other.keys() if expected.get(key) != other.get(key)}
        if different:
            found.append(f"{place} and {first} differ in {len(different)} keys, such as {min(different)}")
    return found


def relative(names: Names) -> Names:
    """The names with change counters counted from their least one. A recovery moves all counters of a namespace by one
    number, which no lost voter can have given out; what remains is equal in all voters. Pure."""
    least = min((change_of(tag) for _, tag, _ in names.values()), default=0)
    return {key: (size, f"{inode_of(tag)}-{change_of(tag) - least}", time) for key, (size, tag, time) in names.items()}


def inode_of(tag: str) -> int:
    """A tag is `"INODE-CHANGE"`, both hexadecimal."""
    return int(tag.strip('"').split("-")[0], 16)


def change_of(tag: str) -> int:
    return int(tag.strip('"').split("-")[1], 16)


def names_through_each_node(ring: Ring) -> dict[str, Names]:
    return {f"the node {node.ip}": names_at(node) for node in ring.live()}


def names_at(node: Node) -> Names:
    client = Client([node.ip])
    return relative({key: client.validators(key) for key in client.list_keys()})


def names_of_each_voter_alone(ring: Ring) -> dict[str, Names]:
    """Ends all nodes. Then each voter, one at a time, becomes the only one by `storage-node recover`, so that it answers
    from its own log and snapshot and not from a leader's."""
    voters = ring.voters()
    wait_for("no voter lags behind", THREE_HOLDERS_SECONDS, lambda: nobody_lags(ring))
    for node in ring.live():
        ring.stop(node)
    return {f"the voter {node.ip} alone": names_alone(ring, node) for node in voters}


def nobody_lags(ring: Ring) -> bool:
    lags = ring.status()["namespace"]["lags"]
    return bool(lags) and all(lag["entries"] == 0 and not lag["unresponsive"] for lag in lags)


def names_alone(ring: Ring, node: Node) -> Names:
    recovered = ring.command("recover", "--sole-survivor", "--yes", "--data", str(node.data))
    if recovered.returncode != 0:
        raise RuntimeError(f"storage-node recover of {node.ip}: {recovered.stderr.strip()}")
    ring.start(node, alone=True)
    ring.wait_ready(node)
    names = names_at(node)
    ring.kill(node)
    return names


def wait_for_three_holders(ring: Ring) -> float:
    """Returns the seconds until `storage-node check --verify` is satisfied and no chunk has a fourth copy."""
    begun = time.monotonic()

    def all_right() -> bool:
        done = check(ring)
        if done.returncode != 0:
            raise ConnectionError(f"storage-node check ended with {done.returncode}: {done.stdout.strip()} {done.stderr.strip()}")
        found = json.loads(done.stdout)
        return found["verified"] and found["nodes"] == len(ring.nodes) and found["surplus_copies"] == 0

    wait_for("every chunk has three equal holders", THREE_HOLDERS_SECONDS, all_right)
    return time.monotonic() - begun


def wait_for_every_holder(ring: Ring) -> None:
    """Returns when each chunk is on all of its holders; with fewer than three nodes these are all nodes."""

    def all_right() -> bool:
        # What belongs to no file any more is not judged here, so it needs no second look.
        done = check(ring, "--grace", "0")
        if not done.stdout:
            raise ConnectionError(f"storage-node check ended with {done.returncode}: {done.stderr.strip()}")
        if wrong := unlike_whole(json.loads(done.stdout), len(ring.nodes)):
            raise ConnectionError(wrong)
        return True

    wait_for("every chunk is on all of its holders", THREE_HOLDERS_SECONDS, all_right)


def check(ring: Ring, *options: str) -> subprocess.CompletedProcess:
    return ring.command("check", "--verify", "--json", "--node", ring.live()[0].address, *options, seconds=COMMAND_SECONDS)


def unlike_whole(found: dict, nodes: int) -> str:
    """In words, what a check of so many nodes found to be wrong; empty if nothing. A ring of one or two nodes reports every
    chunk as one with too few copies, names a thousand of them, and beside each the holders that lack it. Pure."""
    if not found["verified"] or found["nodes"] != nodes:
        return f"{found['nodes']} of {nodes} nodes were checked"
    counts = {kind: found[kind]["count"] for kind in ("missing", "damaged", "unreachable")}
    few = found["under_replicated"]
    at_fault = few["count"] if nodes >= COPIES else sum(bool(chunk["nodes"]) for chunk in few["first"])
    counts |= {"without a copy": at_fault, "surplus": found["surplus_copies"]}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
