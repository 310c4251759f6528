"""A node that is going to be killed, in a process of its own: `python -m tests.acceptance.linger.victim PLAN`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from capsule.config import NodeConfig, SessionOptions
from capsule.node import points
from capsule.node.adoption import Lingering, adoptable
from capsule.node.channel import Channel
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.journal import Journal
from capsule.node.node import Node
from capsule.settings.environments import EnvironmentConfig
from tests.acceptance.linger.store import Store

FAULTS: dict[str, tuple[Any, str]] = {
    "splice": (os, "splice"),
    "readv": (os, "readv"),
    "note": (Journal, "record"),
    "take": (Channel, "take"),
    "commit": (Store, "add"),
    "mark": (Journal, "mark"),
    "dispatch": (Journal, "dispatch"),
    "confirm": (Execution, "confirm"),
}
"""Steps of a node, on one side or the other of which it dies."""


class Plan(BaseModel):
    """What the node does, and when it dies by itself: before or after the given call of a step, counted from 1."""

    directory: Path
    cells: list[str] = []
    """What it runs, one behind the other; none: it adopts what another one has left."""
    seconds: float = 60.0
    options: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    fault: tuple[str, bool, int] | None = None
    eager: bool = False
    """Whether it marks at once what has been dealt with; else it does so once in a while."""


def arm(step: str, after: bool, number: int) -> None:
    """Die there."""
    owner, name = FAULTS[step]
    call: Callable[..., Any] = getattr(owner, name)
    calls = count(1)

    def dying(*arguments: Any, **keywords: Any) -> Any:
        last = next(calls) == number
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        value = call(*arguments, **keywords)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(owner, name, dying)


def config(environment: dict[str, Any] | None = None) -> NodeConfig:
    """A node that makes no worker ahead."""
    return NodeConfig(environments={"default": EnvironmentConfig(**{"min_idle": 0, **(environment or {})})})


async def start(node: Node, plan: Plan, store: Store) -> list[Execution]:
    """A session with its cells."""
    session = await node.open_session(SessionOptions(**plan.options))
    store.session(session)
    requests = {f"x_{number}": ExecuteRequest(code, allow_input=True) for number, code in enumerate(plan.cells)}
    for name, request in requests.items():
        store.execution(name, request)
    return [session.submit(request, name) for name, request in requests.items()]


async def adopt(node: Node, plan: Plan, store: Store) -> list[Execution]:
    """The one session that there is."""
    (box,) = adoptable(plan.directory / "records")
    session = await node.adopt_session(box, store.secret(), store.options(), store.remembered())
    unsent = [session.submit(each.request, each.id) for each in session.unsent]
    return [*session.recalled.values(), *unsent]


async def main(plan: Plan) -> None:
    """Write down what comes of the cells, until somebody kills it."""
    store = Store(plan.directory / "store")
    if plan.eager:
        points.POINT_BYTES = 0  # type: ignore[misc]  # final for everybody else
    if plan.fault is not None:
        arm(*plan.fault)
    async with Node(config(plan.environment), lingering=Lingering(plan.seconds, plan.directory / "records")) as node:
        executions = await (start if plan.cells else adopt)(node, plan, store)
        store.add("node", pid=os.getpid())
        await asyncio.gather(*map(store.follow, executions))
        store.add("idle")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Plan.model_validate_json(sys.argv[1])))
