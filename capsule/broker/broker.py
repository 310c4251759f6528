"""The broker of a node: its providers, its policy, its audit trail, and the calls of its sessions."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from capsule.broker.approvals import Approvals, Decision
from capsule.broker.audit import NoAudit, open_audit
from capsule.broker.calls import SessionCalls
from capsule.broker.checkpoint import Checkpoint
from capsule.broker.own import check_roots, own_of
from capsule.broker.policy import Query, check_sandbox, empty, load, narrow
from capsule.broker.recording import Recorder
from capsule.broker.registry import load as load_providers
from capsule.broker.sdk import Services, checked
from capsule.broker.secrets import Secrets
from capsule.node.asking import Answer
from capsule.node.tasks import Tasks
from capsule_bridge import Bridge, MemoryStore
from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from capsule.broker.book import Book
    from capsule.broker.grants import Grant
    from capsule.broker.policy import Policy
    from capsule.broker.sdk import Asker, Provider, Schema
    from capsule.config import NodeConfig
    from capsule.node.asking import Question
    from capsule_bridge import Promise, Settled

logger = logging.getLogger("capsule.broker")


class Reloaded(NamedTuple):
    """What became of a policy that was read again: the digests of before and now, or why it stays as it was."""

    before: str
    digest: str
    error: CapsuleError | None = None


class Broker:
    """Started before the first session, closed behind the last.

    With a durable `bridge`, approvals survive the node, and so does what the `book` has of calls.
    """

    def __init__(self, config: NodeConfig, bridge: Bridge | None = None, book: Book | None = None) -> None:
        self._config = config
        self.config = config.broker
        self.book = book
        self.approvals = Approvals(bridge or Bridge(MemoryStore()), durable=bridge is not None)
        self.approvals.on_asked = self._tell
        self.on_approval: Callable[[dict[str, Any]], Awaitable[None]] | None = None
        """Is asked whenever a call waits for an approval."""
        self.ask: Callable[[str, str, Question], Awaitable[Answer]] | None = None
        """Puts a question to whoever answers those of a session, by its id and that of an execution."""
        self._tasks = Tasks()
        self.checkpoint: Checkpoint
        self._providers: Mapping[str, Provider] = {}
        self._undo = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._started = False

    @property
    def policy(self) -> Policy:
        """What is in force."""
        return self.checkpoint.policy

    async def start(self) -> None:
        """Load providers and policy, open the audit trail. Idempotent.

        Raises ArgumentError `provider_refused`, `policy_refused`, and what a provider raises that cannot start.
        """
        async with self._starting:
            if self._started:
                return
            try:
                await self._start()
            except BaseException:
                await self._undo.aclose()
                raise
            self._started = True

    async def _start(self) -> None:
        registry = await asyncio.to_thread(load_providers, self.config.providers)
        self._providers = {name: found.provider for name, found in registry.found.items()}
        self._undo.push_async_callback(registry.close)
        policy = self._load()
        audit = (
            NoAudit()
            if self.config.audit is None
            else await asyncio.to_thread(open_audit, self.config.audit, policy.audit)
        )
        self._undo.push_async_callback(audit.close)
        recorder = Recorder(audit)
        services = Services(secret=Secrets(self.config.secrets).value, ask=self._ask_people)
        for name, found in registry.found.items():
            await found.provider.start(services)
            self._undo.push_async_callback(found.provider.stop)
            await recorder.loaded(name, found)
        await self._check(policy)
        self.checkpoint = Checkpoint(self._providers, policy, recorder, self.approvals)
        await recorder.switched(policy)

    def _load(self) -> Policy:
        if self.config.policy is None:
            return empty()
        return load(self.config.policy, {name: each.descriptor for name, each in self._providers.items()})

    async def _check(self, policy: Policy) -> None:
        """Whether it can be kept: every environment has the sandbox that it asks for, every scope can be served, and
        none has in it what is the node's own.

        Raises ArgumentError.
        """
        for name, environment in self._config.environments.items():
            check_sandbox(policy, name, environment)
        own = await asyncio.to_thread(own_of, self._config)
        for rule in policy.rules:
            for name, grant in rule.by_provider.items():
                provider = self._providers[name]
                check_roots(grant.scope, own, grant.name)
                with _of_grant(grant):
                    await checked(provider, grant.scope)

    async def reload(self, config: NodeConfig) -> Reloaded:
        """Read the policy again; one that cannot be used leaves the old one in force, and is logged.

        What is asked for later is read later: what the file said last is in force in the end. The same policy comes
        into force anew: its providers hold what its scopes name now.
        """
        async with self._reloading:
            self._config, self.config = config, config.broker
            before = self.policy.digest
            try:
                policy = await asyncio.to_thread(self._load)
                await self._check(policy)
                await self.checkpoint.recorder.switched(policy, before)
            except CapsuleError as error:
                logger.error("the policy stays as it was: %s", error)  # noqa: TRY400  # the message says it all
                return Reloaded(before, before, error)
            except Exception as error:
                logger.exception("the policy stays as it was")
                message = f"could not be looked at ({type(error).__name__}: {error})"
                return Reloaded(before, before, ArgumentError("policy", message, code="policy_refused"))
            self.checkpoint.recorder.audit.configure(policy.audit)
            self.checkpoint.policy = policy
            return Reloaded(before, policy.digest)

    async def decide(self, approval: str, decision: Decision) -> Settled:
        """Somebody approves a call, or does not; the first word counts, and each is recorded, refused ones too.

        Raises SessionError `promise_unknown`, `permission_denied`.
        """
        promise = await self.approvals.find(approval)
        try:
            settled = await self.approvals.decide(promise, decision)
        except SessionError as error:
            if error.code == "permission_denied":
                await self.refuse(promise, decision, error)
            raise
        await self.checkpoint.recorder.decided(settled, decision, self.policy)
        return settled

    async def refuse(self, promise: Promise, decision: Decision, error: SessionError) -> None:
        """Record that somebody may not approve this call."""
        await self.checkpoint.recorder.turned_away(promise, decision, error, self.policy)

    def open(self, asker: Asker, wanted: tuple[str, ...] | None) -> SessionCalls:
        """For the calls of one session, which are allowed no more than it `wanted`."""
        return SessionCalls(self, asker, wanted)

    def describe(self, asker: Asker, wanted: tuple[str, ...] | None) -> list[dict[str, Any]]:
        """The operations that a session may call, with their schemas."""
        told = []
        for name, provider in sorted(self._providers.items()):
            for operation, what in provider.descriptor.operations.items():
                capability = f"{name}.{operation}"
                query = Query(capability, asker.principal, asker.environment, asker.session_name)
                if narrow(self.policy.decide(query), wanted).allowed:
                    told.append(
                        {
                            "name": capability,
                            "summary": what.summary,
                            "request": _described(what.request),
                            "response": _described(what.response),
                            "takes_body": what.takes_body,
                            "gives_body": what.gives_body,
                            "body_kind": what.body_kind,
                        }
                    )
        return told

    async def _ask_people(self, session: str, execution: str, question: Question) -> Answer:
        if self.ask is None:
            return Answer(None, "eof")
        return await self.ask(session, execution, question)

    def _tell(self, asked: dict[str, Any]) -> None:
        if self.on_approval is not None:
            self._tasks.start(self._ask(self.on_approval, asked))

    async def _ask(self, callback: Callable[[dict[str, Any]], Awaitable[None]], asked: dict[str, Any]) -> None:
        """What a callback raises denies the call."""
        try:
            await callback(asked)
        except Exception:
            logger.exception("on_approval failed, so %s is denied", asked["capability"])
            with suppress(CapsuleError):  # somebody else may have decided
                await self.decide(
                    asked["id"], Decision(approve=False, by="on_approval", reason="it could not be asked")
                )

    async def close(self) -> None:
        """Stop the providers, close the audit trail. Idempotent."""
        await self._tasks.close()
        await self._undo.aclose()


@contextmanager
def _of_grant(grant: Grant) -> Iterator[None]:
    """Whoever has to correct it is told where it stands."""
    try:
        yield
    except ArgumentError as error:
        error.message = f"line {grant.line}: grants.{grant.name}: {error.message}"
        raise


@lru_cache(maxsize=1024)
def _described(schema: type[Schema]) -> dict[str, Any]:
    """Its JSON schema, which takes a millisecond to make and may be asked for again and again by code."""
    return schema.model_json_schema()
