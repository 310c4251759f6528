"""The provider `shell`: runs programs that a grant names, each in a sandbox of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.broker.sdk import Descriptor, Health, Limits, Operation
from capsule.node.transfers import beneath
from capsule.providers.shell import admission, levels, variables
from capsule.providers.shell.launcher import Launcher
from capsule.providers.shell.pins import Pins
from capsule.providers.shell.running import Caps, Run
from capsule.providers.shell.scope import RunRequest, RunResponse, ShellScope
from capsule_protocol.errors import ArgumentError, CapabilityDenied, CapabilityFailed, SessionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule.broker.sdk import Call, Schema, Services
    from capsule.providers.shell.scope import ProgramScope

_RUN = Operation(
    "Run a program of the grant: its stdin is the body that goes in, its outputs are the body that comes out",
    RunRequest,
    RunResponse,
    takes_body=True,
    gives_body=True,
    body_kind="outputs",
    limits=Limits(timeout=60.0, concurrent=4),
)


class ShellProvider:
    """Runs programs through one launcher."""

    descriptor = Descriptor("shell", "1.0", {"run": _RUN}, ShellScope)

    def __init__(self) -> None:
        self._pins = Pins()
        self._launcher = Launcher()

    async def start(self, services: Services) -> None:
        """Nothing is started before it is needed."""

    async def health(self) -> Health:
        """Whether programs can be started."""
        return Health(ok=True)

    async def stop(self) -> None:
        """End the launcher; idempotent."""
        await self._launcher.stop()
        self._pins.close()

    def check(self, scope: ShellScope) -> None:
        """Hold the programs and roots of a grant. Raises ArgumentError for what cannot be had here."""
        lacking = levels.lacking(scope.sandbox)
        if lacking:
            raise ArgumentError("sandbox", f"{scope.sandbox}: {lacking}", allowed=levels.available())
        if scope.uid is not None and os.geteuid() not in {0, scope.uid}:
            raise ArgumentError("uid", "only a node that runs as root can run programs as another user", allowed="none")
        for name, program in scope.programs.items():
            _check_readable(program.readable, f"programs.{name}.readable")
            _check_cpus(program.limits.cpus, scope.sandbox, f"programs.{name}.limits.cpus")
        _check_apart(scope)
        self._pins.pin(scope)

    def admit(self, operation: str, request: RunRequest, scope: ShellScope) -> None:  # noqa: ARG002 (there is one)
        """Whether program, arguments, variables and root are those of the grant."""
        admission.admitted(request, scope)

    async def call(self, call: Call) -> Schema:
        """Run the program to its end."""
        request: RunRequest = call.request
        scope: ShellScope = call.scope
        program, argv = admission.admitted(request, scope)
        message = _message(program, scope, argv, request.env)
        with self._pins.held(scope, program.path) as (pinned, descriptors):
            message |= {"cwd": _cwd(request, scope, descriptors[1:]), "real": pinned.real, "script": pinned.script}
            run = Run(call.body, call.send, Caps.of(program.limits.output_bytes, call.limits.response_bytes))
            return await run.go(self._launcher, message, descriptors, request.timeout)


def _cwd(request: RunRequest, scope: ShellScope, roots: Sequence[int]) -> list[str | int]:
    """The number of the root and the folders below it; empty for the run's own directory.

    The program goes there by itself, by steps that are no links; looking here first tells what is wrong.
    """
    name, inner = admission.root_of(request, scope)
    if not name:
        return []
    number = list(scope.roots).index(name)
    if inner:
        _check_folder(roots[number], inner, request.cwd)
    return [number, *filter(None, inner.split("/"))]


def _check_apart(scope: ShellScope) -> None:
    """No program may be where programs write."""
    writable = [os.path.realpath(root.path) for root in scope.roots.values() if root.mode == "rw"]
    for name, program in scope.programs.items():
        real = Path(os.path.realpath(program.path))
        for above in writable:
            if real.is_relative_to(above):
                allowed = "a program outside of the roots that programs may write to"
                raise ArgumentError(f"programs.{name}.path", f"{real} is below {above}", allowed=allowed)


def _check_readable(paths: tuple[str, ...], argument: str) -> None:
    for path in paths:
        if not Path(path).is_absolute() or not Path(path).exists():
            raise ArgumentError(argument, f"{path!r} is not there", allowed="paths that exist, from /")


def _check_cpus(cpus: float | None, sandbox: str, argument: str) -> None:
    """Nothing but a control group bounds that, and nothing but a sandbox keeps a program in one."""
    if cpus is None:
        return
    lacking = "it bounds nothing without a sandbox" if sandbox == "none" else levels.lacking(levels.CPUS)
    if lacking:
        raise ArgumentError(argument, f"{cpus:g}: {lacking}", allowed="none, or a machine that can bound it")


def _message(program: ProgramScope, scope: ShellScope, argv: list[str], env: dict[str, str]) -> dict[str, Any]:
    return {
        "argv": argv,
        "env": {**variables.BASE, **env, **program.env},
        "limits": program.limits.model_dump(exclude={levels.CPUS}),
        "cpus": program.limits.cpus,
        "level": scope.sandbox,
        "network": program.network,
        "uid": scope.uid,
        "readable": list(program.readable),
        "roots": [{"path": root.path, "writable": root.mode == "rw"} for root in scope.roots.values()],
    }


def _check_folder(top: int, inner: str, cwd: str) -> None:
    """Raise CapabilityDenied `path_refused` or CapabilityFailed `path_unknown` for what is no folder below a root."""
    try:
        with beneath.folder_of(top, f"{inner}/_"):
            return
    except SessionError as error:
        if error.code == "file_unknown":
            raise CapabilityFailed("path_unknown", f"cwd {cwd!r}: there is no such directory") from error
        raise CapabilityDenied("path_refused", f"cwd {cwd!r} does not lead to a directory below its root") from error


def provider() -> ShellProvider:
    """The provider, for the registry."""
    return ShellProvider()
