"""Makes all attacks at some levels as one user: `python -m tests.acceptance.sandbox.attacks.runner --help`.

The last line for each level is `0 escapes of N`. The level `none` is the control: there they have to get through.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tests.acceptance.sandbox import as_user
from tests.acceptance.sandbox.attacks import toolbox
from tests.acceptance.sandbox.attacks.attack import SANDBOXED, Attack, Level, User
from tests.acceptance.sandbox.attacks.siege import Ending, Siege, gather

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("files", "network", "processes", "kernel", "resources", "protocol")
ONE_BY_ONE = ("resources", "protocol")
"""Their attacks are felt by whoever runs at the same time."""
AT_ONCE = 3
PR_SET_PDEATHSIG = 1
MODULE = "tests.acceptance.sandbox.attacks.runner"


def attacks(kinds: Sequence[str] = KINDS) -> list[Attack]:
    """All attacks of these kinds."""
    names = [f"tests.acceptance.sandbox.attacks.{kind}" for kind in kinds]
    return [attack for name in names for attack in importlib.import_module(name).collection.attacks]


def faults(endings: Sequence[Ending], user: User) -> list[str]:
    """What is wrong: escapes where they are forbidden, attacks that are broken, controls that did not get through."""
    known = {attack.name: attack for attack in attacks()}
    found = []
    for end in endings:
        attack = known[end.attack]
        escape = attack.promised(end.level, user) and end.how == "escaped"
        vain = end.level == "none" and attack.succeeds(user) and end.how == "held" and end.what != "ENOSYS"
        if escape or vain or end.how == "broken":
            what = "the control did not get through" if vain else end.how
            found.append(f"{end.level}, {user}: {end.attack} ({end.way}): {what}: {end.what}")
    return found


def summary(endings: Sequence[Ending], level: Level, user: User) -> str:
    """How many got out at this level, of how many that it promises to hold and the machine offers."""
    known = {attack.name: attack for attack in attacks()}
    here = [end for end in endings if end.level == level]
    if level == "none":
        controls = [end for end in here if known[end.attack].succeeds(user)]
        return f"{sum(end.how == 'escaped' for end in controls)} of {len(controls)} get through, as controls"
    counted = [end for end in here if known[end.attack].promised(level, user) and end.how != "missing"]
    escapes = sum(end.how == "escaped" for end in counted)
    return f"{escapes} escapes of {len(counted)} ({len(here) - len(counted)} are not promised, or not of this machine)"


async def besiege(
    place: Path,
    chosen: Sequence[Attack],
    levels: list[Level],
    rounds: int = 1,
    at_once: int = AT_ONCE,
    start_method: str = "fork",
) -> list[Ending]:
    """Make these attacks at these levels, on a node in this place; in later rounds in another order."""
    endings = []
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Siege(place, levels, start_method) as siege:
        for level in levels:
            here = [attack for attack in chosen if level != "none" or attack.control != "never"]
            gentle = [attack for attack in here if attack.kind not in ONE_BY_ONE]
            rough = [attack for attack in here if attack.kind in ONE_BY_ONE]
            for number in range(rounds):
                chance = random.Random(number)
                mixed = chance.sample(gentle, len(gentle)) if number else gentle
                endings += await gather(siege, mixed, level, at_once)
                endings += await gather(siege, rough, level, 1)
    return endings


def run(user: User, levels: Sequence[Level], kinds: Sequence[str] = KINDS, **more: object) -> list[Ending]:
    """Besiege a node of this user, in a process of its own; root's workers are other users, which need a way in too.

    `more` are other options of the command.
    """
    words = [sys.executable, "-m", MODULE, "--here", "--kind", *kinds, "--level", *levels]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in more.items()]
    if os.geteuid() != 0:
        return _endings(words)
    uid = 0 if user == "root" else as_user.ORDINARY
    with as_user.own_home(uid) as home:
        return _endings(as_user.command(home, *words, uid=uid))


def _endings(words: list[str]) -> list[Ending]:
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()  # it has a node to end
            raise
    assert process.returncode == 0, f"the siege ended with {process.returncode}"
    return [Ending(**end) for end in json.loads(said.splitlines()[-1])]


def _here(arguments: argparse.Namespace) -> None:
    """In this process: what came of it, as one line. It ends when the one that has started it does."""
    toolbox.libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    chosen = [attack for attack in attacks(arguments.kind) if arguments.only in attack.name]
    with tempfile.TemporaryDirectory(prefix="s-", ignore_cleanup_errors=True) as place:
        how = arguments.rounds, arguments.at_once, arguments.start_method
        endings = asyncio.run(besiege(Path(place), chosen, arguments.level, *how))
    print(json.dumps([dataclasses.asdict(end) for end in endings]))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="runner", description=__doc__)
    parser.add_argument("--level", nargs="+", choices=get_args(Level), default=list(SANDBOXED))
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--user", nargs="+", choices=get_args(User), default=list(get_args(User)))
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is made")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="how many at the same time")
    parser.add_argument("--start-method", default="fork", help="how the sessions' workers begin")
    parser.add_argument("--verbose", action="store_true", help="tell of those that were held too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        _here(arguments)
        return 0
    wrong = []
    for user in arguments.user:
        names = ("only", "rounds", "at_once", "start_method")
        more = {name: getattr(arguments, name) for name in names}
        endings = run(user, arguments.level, arguments.kind, **more)
        for end in endings if arguments.verbose else ():
            print(f"{end.level}, {user}: {end.kind}: {end.attack} ({end.way}, {end.seconds} s): {end.how}: {end.what}")
        wrong += faults(endings, user)
        for level in arguments.level:
            print(f"{level} as {user}: {summary(endings, level, user)}")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
