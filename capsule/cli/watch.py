"""`capsule attach --watch`: what a session of a running node tells, while somebody else drives it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from capsule.cli import exits
from capsule.cli.show import JsonLines, Presenter, Screen
from capsule.cli.sink import Sink
from capsule.events import Event, Finished, InputRequest
from capsule.text import question
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from capsule.client.session import AsyncSession


class Onlooker:
    """One invocation. It reads no input; Ctrl-C ends it, and leaves the session as it is."""

    def __init__(self, name: str, address: str, *, as_json: bool) -> None:
        self._name = name
        self._address = address
        self._out = Sink(1)
        self._screen = Screen(self._out, Sink(2), echo=True)
        self._as_json = as_json
        self._presenter: Presenter = JsonLines(self._out) if as_json else self._screen

    def run(self) -> int:
        """The exit code."""
        try:
            return asyncio.run(self._main())
        except KeyboardInterrupt:
            return exits.Exit.OK

    async def _main(self) -> int:
        from capsule import AsyncClient

        try:
            async with AsyncClient(self._address) as client:
                await self._follow(await client.attach(self._name, watch=True))
        except CapsuleError as error:
            await self._presenter.fail(error)
            return exits.of_error(error)
        except BrokenPipeError:
            return exits.Exit.BROKEN_PIPE
        return exits.Exit.OK

    async def _follow(self, session: AsyncSession) -> None:
        """Show every event, until the session ends."""
        if self._out.terminal and not self._as_json:
            await self._screen.tell(f"watching {session.name}; Ctrl-C ends it")
        async for event in session.watch():
            await self._show(event)
        if not self._as_json:
            await self._screen.tell("the session has ended")

    async def _show(self, event: Event) -> None:
        await self._presenter.show(event)
        if self._as_json:
            return
        if isinstance(event, InputRequest):  # its client answers, and the answer is not told
            await self._out.write(question(event))
        if isinstance(event, InputRequest | Finished):
            await self._out.fresh_line()
