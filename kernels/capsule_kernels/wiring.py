"""The parts of a worker: made for each other, and put in their places in the process.

A zygote makes them as well, over and over, and throws them away. Python keeps the names of attributes once for all
instances of a class, from the first one on, and counts in each name how often it is kept; it rewrites code that runs
often, and remembers what it has found in classes. Each worker would do all that, and so have pages of its own that it
can share.
"""

from __future__ import annotations

import asyncio
import getpass
import mmap
import os
import sys
from typing import TYPE_CHECKING, Final

from capsule_kernels import streams
from capsule_kernels.answering import Answering
from capsule_kernels.asking import Ask
from capsule_kernels.calls import Calls
from capsule_kernels.capture import Outlet
from capsule_kernels.comms import Comms
from capsule_kernels.debugging import Debugging
from capsule_kernels.display import Progress
from capsule_kernels.engine import Engine
from capsule_kernels.handlers import Guards
from capsule_kernels.interrupts import Interrupts
from capsule_kernels.link import Link
from capsule_kernels.prepared import Prepared
from capsule_kernels.publisher import Publisher
from capsule_kernels.stdin import Stdin
from capsule_kernels.warming import Warming
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.page import PAGE_SIZE, Page

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell

TIMES: Final = 10
"""Python rewrites a function at its eighth call."""


_replaced: list[object] = []
"""What `install` has put others in the place of. It is kept, for who frees it writes to all that it consists of."""


def assemble(prepared: Prepared, link: Link, outlet: Outlet) -> Engine:
    """Make the parts. They know each other, and nothing else in the process knows them."""
    publisher = Publisher(link, outlet)
    comms = Comms(publisher)
    answers = {**prepared.introspection.answers(), "comm_info": comms.answer}
    return Engine(
        shell=prepared.shell,
        link=link,
        outlet=outlet,
        publisher=publisher,
        stdin=Stdin(publisher, outlet),
        loop=prepared.loop,
        answering=Answering(answers, link, prepared.interrupts),
        comms=comms,
        calls=Calls(publisher, link, outlet),
        debugging=Debugging(prepared.shell, link, publisher, prepared.interrupts),
        runner=prepared.runner,
        checkpoints=prepared.checkpoints,
        magic=prepared.magic,
        warming=Warming(prepared.runner, outlet, prepared.interrupts),
    )


def install(engine: Engine) -> None:
    """Put them where user code, IPython and Python find them: this process is theirs from now on."""
    shell, publisher, loop = engine.shell, engine.publisher, engine.loop
    _replaced.extend((sys.stdin, sys.stdout, sys.stderr, getpass.getpass, vars(getpass).get("unix_getpass")))
    shell.display_pub.publisher = publisher
    shell.subshells = engine.subshells
    streams.install(engine.outlet)
    engine.stdin.install()
    asyncio.set_event_loop(loop)
    os.register_at_fork(after_in_child=loop.forked)
    shell.add_name("capsule_progress", Progress(publisher))
    shell.add_name("capsule_ask", Ask(engine.stdin))
    engine.comms.install()
    shell.kernel.serve(publisher, engine.comms.manager)


def rehearse_cells(shell: ZMQInteractiveShell) -> None:
    """In the zygote: run empty cells, which each worker does. Nothing of the environment may be imported yet.

    What its modules put around cells may start threads, or count.
    """
    page = _page()
    engine = _for_nobody(Prepared(shell, Interrupts(page)), page)
    for _ in range(TIMES):
        engine.warming.run_empty()


def rehearse(prepared: Prepared) -> None:
    """In the zygote, when all is imported: make the parts."""
    page = _page()
    for _ in range(TIMES):
        _for_nobody(prepared, page)


def _for_nobody(prepared: Prepared, page: Page) -> Engine:
    """Parts between no node and no pipes, which have no descriptors."""
    interrupts = Interrupts(page)
    Guards(interrupts, prepared.shell.showtraceback)
    outlet = Outlet((-1, -1), page, b"", interrupts)
    streams.TextStream(outlet, 0)
    engine = assemble(prepared, Link(DEFAULT_LIMITS, outlet, interrupts), outlet)
    Progress(engine.publisher)
    Ask(engine.stdin)
    return engine


def _page() -> Page:
    """Not of the memory that processes share: it stays in the zygote."""
    return Page(mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
