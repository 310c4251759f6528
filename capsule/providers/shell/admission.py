"""Whether a call of `shell.run` is within its grant: decided from the two alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from capsule.providers.shell import patterns
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule.providers.shell.scope import Form, ProgramScope, RunRequest, ShellScope

_TOLD_CHARACTERS = 200


def admitted(request: RunRequest, scope: ShellScope) -> tuple[ProgramScope, list[str]]:
    """The program and its whole argv. Raises CapabilityDenied; CapabilityFailed for what cannot be an argv."""
    program, arguments = _arguments(request, scope)
    _check_text(program, [*arguments, *request.env, *request.env.values()])
    if not isinstance(request.args, str):
        _check_form(request.args[0], program, arguments)
    _check_env(request, program)
    _check_cwd(request, scope)
    return program, [program.path, *arguments]


def root_of(request: RunRequest, scope: ShellScope) -> tuple[str, str]:
    """The root that a run works in and the name below it, both "" for the run's own directory."""
    if not request.cwd:
        return next(iter(scope.roots), ""), ""
    root, _, inner = request.cwd.partition("/")
    return root, inner


def _arguments(request: RunRequest, scope: ShellScope) -> tuple[ProgramScope, list[str]]:
    if isinstance(request.args, str):
        shell = next((program for program in scope.programs.values() if program.shell_string), None)
        if shell is None:
            raise _outside(f"the grant lets no shell take a string; args is a list: a name, then {_names(scope)}")
        return shell, ["-c", "--", request.args]
    if not request.args:
        raise CapabilityFailed("capability_invalid", "args is empty; it is the name of a program and its arguments")
    name, *arguments = request.args
    program = scope.programs.get(name)
    if program is None:
        raise _outside(f"the grant has no program {name[:_TOLD_CHARACTERS]!r}; it has {_names(scope)}")
    return program, arguments


def _names(scope: ShellScope) -> str:
    return ", ".join(scope.programs) or "none"


def _check_text(program: ProgramScope, texts: Iterable[str]) -> None:
    size = 0
    for text in texts:
        if "\0" in text:
            raise CapabilityFailed("capability_invalid", "an argument or a variable has a NUL, which ends it")
        try:
            size += len(text.encode()) + 1
        except UnicodeEncodeError:
            message = "an argument or a variable is not text that UTF-8 can encode"
            raise CapabilityFailed("capability_invalid", message) from None
    if size > program.limits.argument_bytes:
        most = program.limits.argument_bytes
        raise _outside(f"the arguments have {size} bytes; the grant allows {most}: send more over stdin")


def _check_form(name: str, program: ProgramScope, arguments: list[str]) -> None:
    if any(patterns.fits(compiled(form), arguments) for form in program.args):
        return
    told = "; ".join(" ".join([name, *map(_described, form)]) for form in program.args)
    given = " ".join(map(repr, arguments))[:_TOLD_CHARACTERS]
    raise _outside(f"{name} with {given or 'no arguments'} fits no form of the grant; forms: {told or 'none'}")


def _check_env(request: RunRequest, program: ProgramScope) -> None:
    for name, value in request.env.items():
        pattern = program.variables.get(name)
        if pattern is None:
            allowed = ", ".join(program.variables) or "none"
            raise _outside(
                f"the grant does not let the variable {name[:_TOLD_CHARACTERS]!r} be set; allowed: {allowed}"
            )
        # A value of a variable is not read as an option.
        if not patterns.compiled(pattern).matches(value, dash=True):
            raise _outside(f"the value of {name} does not fit {pattern!r}")


def _check_cwd(request: RunRequest, scope: ShellScope) -> None:
    root, inner = root_of(request, scope)
    if request.cwd and root not in scope.roots:
        allowed = ", ".join(scope.roots) or "none"
        raise CapabilityDenied(
            "path_refused", f"cwd {request.cwd[:_TOLD_CHARACTERS]!r}: no root {root!r}; allowed: {allowed}"
        )
    if "\0" in inner:
        raise CapabilityDenied("path_refused", "cwd has a NUL")


@lru_cache(maxsize=1024)
def compiled(form: Form) -> tuple[patterns.Group, ...]:
    """The form, ready to be matched."""
    return tuple(
        patterns.Group(
            tuple(tuple(map(patterns.compiled, row)) for row in group.any_of), group.min, group.max, group.dash
        )
        for group in form
    )


def _described(group: object) -> str:
    from capsule.providers.shell.scope import GroupScope

    assert isinstance(group, GroupScope)
    rows = " | ".join(" ".join(row) for row in group.any_of)
    if (group.min, group.max) == (1, 1):
        return rows if len(group.any_of) == 1 else f"({rows})"
    return f"[{rows}]" + (f"×{group.min}–{group.max}" if (group.min, group.max) != (0, 1) else "")


def _outside(message: str) -> CapabilityDenied:
    return CapabilityDenied("capability_outside_grant", message)
