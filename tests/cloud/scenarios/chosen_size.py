"""An operator chooses the size: the group follows it instead of its alarms, within its own limits, and shrinks as far as
one node, drained one after the other under load. After a release the alarms rule again."""

from __future__ import annotations

import json
import subprocess

from ..instance import DATA
from ..lab import GROUP, Lab
from ..load import MIB, Churn, Files
from .scale_in import check_hooks
from .setup import METRICS_EACH_SECOND, Setup, expect, health

LARGEST = 3


def run(setup: Setup) -> None:
    with setup.lab() as lab:
        lab.create_group(minimum=1, maximum=LARGEST, extra=METRICS_EACH_SECOND)
        lab.wait_ring(1, 60)
        wait_alarms(lab, enabled=True)
        desk = lab.workstation()
        files = Files(desk.mount(f"asg:{GROUP}"))
        for number in range(4):
            files.write(f"kept-{number}", 4 * MIB)
        for size in range(2, LARGEST + 1):
            choose(lab, "grow")
            lab.wait_ring(size, 120)
        wait_alarms(lab, enabled=False)
        lab.wait_whole()
        limit_is_named(lab)
        load = Churn(files)
        for size in range(LARGEST - 1, 0, -1):
            lab.wait("no step is under way", 120, lambda: settled(lab))
            choose(lab, "shrink")
            lab.wait_ring(size, 240)
        load.stop()
        check_hooks(lab, setup)
        expect(lab.describe()["DesiredCapacity"] == 1, "the group itself has the chosen size")
        files.check_all()
        choose(lab, "release")
        wait_alarms(lab, enabled=True)
        desk.unmount()


def choose(lab: Lab, what: str) -> None:
    done = command(lab, "pool-size", what)
    expect(done.returncode == 0, f"`pool-size {what}` is accepted: {done.stdout}{done.stderr}")


def command(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of operators against a serving node, with that node's token."""
    instance = lab.serving()[0]
    node = instance.node()
    assert node
    token = f"/proc/{node[0]}/root/{DATA}/operator-token"
    return lab.storage_node(*arguments, "--node", instance.ip, "--token-file", token)


def pool(lab: Lab) -> dict[str, object]:
    found = lab.serving()[0].json("/pool")
    return found if isinstance(found, dict) else {}


def settled(lab: Lab) -> bool:
    busy = ("arriving", "filling", "draining", "silent")
    now = pool(lab)
    return bool(now) and not any(now[what] for what in busy) and now["serving"] == now["wanted"]


def limit_is_named(lab: Lab) -> None:
    """The operator's limits are wider than the group's: the group stays at its own, and /healthz says so."""
    choose(lab, "grow")
    lab.wait("a node names the group's limits", 60, lambda: any("allows 1 to 3" in health(one)[1] for one in lab.serving()))
    expect(lab.describe()["DesiredCapacity"] == LARGEST, "the group stays within its limits")
    choose(lab, "shrink")
    lab.wait("the problem is gone", 60, lambda: not any("allows 1 to 3" in health(one)[1] for one in lab.serving()))


def wait_alarms(lab: Lab, enabled: bool) -> None:
    def switched() -> bool:
        alarms = [alarm for alarm, _ in lab.cloudwatch.alarms().values()]
        return len(alarms) == 2 and all(alarm.actions_enabled == enabled for alarm in alarms)

    lab.wait(f"both alarms trigger their policies: {json.dumps(enabled)}", 60, switched)
