"""The node of library mode: it owns the zygotes and the sessions, in the event loop of its caller."""

from __future__ import annotations

import asyncio
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from capsule.config import NodeConfig, SessionOptions
from capsule.node.adoption import take_over
from capsule.node.asking import Answer
from capsule.node.environments import Environments
from capsule.node.heir import Heir
from capsule.node.home import LOCAL, Home, Identity
from capsule.node.info import NodeInfo
from capsule.node.inheritance import InheritedSession, Remembered, Will
from capsule.node.pools import Pools
from capsule.node.session import Session
from capsule.node.tasks import Tasks, result_of
from capsule.node.worker import Place
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capsule.broker.broker import Broker, Reloaded
    from capsule.node.adoption import Adoptable, Lingering
    from capsule.node.asking import Question
    from capsule_bridge import Bridge
    from capsule_pool import OnEvent

S = TypeVar("S", bound=Session)


class Node:
    """An asynchronous context manager; leaving it closes every session and leaves no process and no file."""

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        on_pool_event: OnEvent | None = None,
        lingering: Lingering | None = None,
        bridge: Bridge | None = None,
    ) -> None:
        self.config = config or NodeConfig()
        self._lingering = lingering
        self._tasks = Tasks()
        self._openings = Tasks()
        self._environments = Environments(self.config.environments, self._tasks, self.config.directory)
        self._pools = Pools(
            self.config.environments, self._place, self._tasks, on_pool_event, lasting=lingering is not None
        )
        self.broker: Broker | None = None
        if self.config.broker.policy is not None:
            from capsule.broker.broker import Broker  # late: a node without a policy needs none of it
            from capsule.node.durable.calls import CallBook

            self.broker = Broker(self.config, bridge, None if bridge is None else CallBook(bridge))
            self.broker.ask = self._ask_people
        self._sessions: dict[str, Session] = {}
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The open sessions by id."""
        return MappingProxyType(self._sessions)

    async def open_session(self, options: SessionOptions | None = None, principal: str = LOCAL) -> Session:
        """A ready session of this principal. A caller that is cancelled leaves nothing behind.

        Raises EnvironmentFailed, PoolError, WorkerLost, ArgumentError for options that the worker refuses or a policy
        that cannot be used, and SessionError when the node is closed or has as many sessions as it may.
        """
        options = options or SessionOptions()
        self._check_open()
        self._environments.check(options.environment)
        if len(self._sessions) >= self.config.max_sessions:
            raise SessionError("too_many_sessions", f"the node has max_sessions={self.config.max_sessions} already")
        return await self._openings.run_or_undo(self._open(options, principal), Session.close)

    async def adopt_session(
        self,
        box: Adoptable,
        secret: bytes,
        options: SessionOptions,
        remembered: Sequence[Remembered] = (),
        principal: str = LOCAL,
    ) -> InheritedSession:
        """Go on with a session that another node has left: `adoptable` finds it, a durable store remembers the rest.

        Raises WorkerLost: `adoption_refused` if it is gone, somebody else's, or cannot go on. A caller that is
        cancelled has ended the session.
        """
        self._check_open()
        if self._lingering is None:
            raise SessionError("unsupported", "this node's sessions do not outlive it, so it adopts none")
        if self.broker is not None:
            await self.broker.start()
        heir = Heir(await take_over(box, secret))
        self._pools.adopt(heir)
        identity = Identity(box.session, box.epoch, self._will(secret, box), principal=principal)
        session = self._add(InheritedSession, options, identity)
        try:
            await session.adopt(heir, remembered)
        except BaseException:
            self._forget(session)
            self._pools.give_back(heir)
            raise
        return session

    def find_again(self, options: SessionOptions, identity: Identity, secret: bytes = b"") -> Session:
        """A session of an earlier node, which has lost its worker. It is restarted when somebody wants it.

        `secret`: what the earlier node had given it.
        """
        return self._add(Session, options, identity._replace(will=self._will(secret), lost=True))

    def info(self) -> NodeInfo:
        """The node as it is now."""
        return NodeInfo(sessions=len(self._sessions), pools=self._pools.info())

    async def configure(self, config: NodeConfig) -> Reloaded | None:
        """Go on with another configuration: other limits, more environments, other sizes of their pools.

        What has been started stays as it is; sessions that are open keep what they opened with. The policy is read
        again, if there is one: answers what became of it.
        """
        self.config = config
        self._environments.configure(config.environments)
        self._pools.configure(config.environments)
        return None if self.broker is None else await self.broker.reload(config)

    async def prepare(self, environment: str = "default") -> None:
        """Start broker and zygote ahead of the first session. Raises EnvironmentFailed, WorkerLost, ArgumentError."""
        self._check_open()
        if self.broker is not None:
            await self.broker.start()
        await self._environments.zygote(environment)

    def warm(self, environment: str = "default") -> None:
        """Begin to make workers ahead of the first session. What goes wrong with it, that session is told."""
        self._check_open()
        self._pools.warm(environment)

    async def close(self) -> None:
        """Close all sessions, then the zygotes. Idempotent; goes on to its end when the caller is cancelled."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await result_of(self._closing)

    async def _ask_people(self, session: str, execution: str, question: Question) -> Answer:
        found = self._sessions.get(session)
        return Answer(None, "eof") if found is None else await found.powers.ask_people(execution, question)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise SessionError("node_closed", "the node has been closed")

    def _add(self, kind: type[S], options: SessionOptions, identity: Identity) -> S:
        home = Home(
            self._tasks,
            self._pools,
            self.config.heartbeat_interval,
            self._forget,
            lambda: self.config.max_checkpoint_bytes,
            self.broker,
        )
        session = kind(options, home, identity)
        self._sessions[session.id] = session
        return session

    async def _open(self, options: SessionOptions, principal: str) -> Session:
        if self.broker is not None:
            await self.broker.start()
        session = self._add(Session, options, Identity(will=self._will(), principal=principal))
        await session.start()
        return session

    def _will(self, secret: bytes = b"", record: Adoptable | None = None) -> Will | None:
        return None if self._lingering is None else Will(self._lingering, secret, record)

    async def _place(self, environment: str) -> Place:
        zygote = await self._environments.zygote(environment)
        return Place(zygote, self.config.directory)

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    async def _close(self) -> None:
        await self._openings.close()
        await asyncio.gather(*(session.close() for session in list(self._sessions.values())))
        await self._pools.close()
        await self._tasks.close()
        await self._environments.close()
        if self.broker is not None:
            await self.broker.close()
