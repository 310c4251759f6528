"""What a grant says of programs, and what a call of `shell.run` asks and is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from capsule.broker.sdk import Schema, ScopeSchema, secret
from capsule.providers.shell import patterns, variables

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$"


def _row(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _group(value: Any) -> Any:
    """A pattern alone is a group of one that comes once; `args` is the only alternative of a group."""
    if isinstance(value, str):
        return {"any_of": [[value]], "min": 1}
    if isinstance(value, dict) and "args" in value and "any_of" not in value:
        rest = {name: inner for name, inner in value.items() if name != "args"}
        return {"any_of": [_row(value["args"])], **rest}
    return value


def _forms(value: Any) -> Any:
    """A single form need not stand in a list of its own."""
    if isinstance(value, list | tuple) and not all(isinstance(inner, list | tuple) for inner in value):
        return [value]
    return [[]] if value in ([], ()) else value


def _pattern(value: str) -> str:
    patterns.compiled(value)
    return value


PatternText: TypeAlias = Annotated[str, AfterValidator(_pattern)]


class GroupScope(ScopeSchema):
    """A part of a form that may be left out or come several times."""

    any_of: tuple[Annotated[tuple[PatternText, ...], BeforeValidator(_row), Field(min_length=1)], ...] = Field(
        min_length=1
    )
    min: int = Field(0, ge=0, le=1000)
    max: int = Field(1, ge=1, le=1000)
    dash: bool = False


Form: TypeAlias = tuple[Annotated[GroupScope, BeforeValidator(_group)], ...]


class RootScope(ScopeSchema):
    """A directory that programs may work in."""

    path: str
    mode: Literal["ro", "rw"] = "ro"


class LimitsScope(ScopeSchema):
    """What one run may use. None: no bound but the system's."""

    cpu_seconds: int | None = Field(300, ge=1)
    memory_bytes: int | None = Field(2**30, ge=2**24)
    cpus: float | None = Field(None, gt=0, le=4096)
    processes: int = Field(64, ge=1, le=32768)
    open_files: int = Field(256, ge=16)
    file_bytes: int | None = Field(2**30, ge=0)
    scratch_bytes: int = Field(2**28, ge=2**16)
    output_bytes: int = Field(2**24, ge=0)
    argument_bytes: int = Field(2**16, ge=0, le=2**17)


class ProgramScope(ScopeSchema):
    """One program: where it is, and how it may be called."""

    path: str
    args: Annotated[tuple[Form, ...], BeforeValidator(_forms)] = ((),)
    shell_string: bool = False
    env: dict[str, str] = Field(default_factory=dict)
    variables: dict[str, PatternText] = Field(default_factory=dict)
    readable: tuple[str, ...] = ()
    network: bool = False
    limits: LimitsScope = LimitsScope()

    @field_validator("env", "variables")
    @classmethod
    def _named(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not variables.is_name(name):
                raise ValueError(f"{name!r} is no name of a variable")
            if "\0" in text:
                raise ValueError(f"the value of {name} has a NUL")
        return value

    @field_validator("variables")
    @classmethod
    def _harmless(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if variables.decides_what_runs(name):
                raise ValueError(f"a session may not set {name}: it can decide what a program runs; give it in `env`")
        return value


class ShellScope(ScopeSchema):
    """What a grant says to `shell`."""

    programs: dict[Annotated[str, Field(pattern=_NAME)], ProgramScope] = Field(default_factory=dict)
    roots: dict[Annotated[str, Field(pattern=_NAME)], RootScope] = Field(default_factory=dict)
    sandbox: Literal["namespaces", "landlock", "none"] = "namespaces"
    uid: int | None = Field(None, ge=1)

    @field_validator("programs")
    @classmethod
    def _one_shell(cls, value: dict[str, ProgramScope]) -> dict[str, ProgramScope]:
        shells = [name for name, program in value.items() if program.shell_string]
        if len(shells) > 1:
            raise ValueError(f"shell_string is for one program, not for {', '.join(shells)}")
        return value


class RunRequest(Schema):
    """`args` as subprocess has them: the program's name in the grant, then its arguments. A string is for the grant's
    shell. `cwd` is `"root"` or `"root/inner"`; the first root, if there is one. `timeout` can only shorten.
    """

    args: list[str] | str = Field(max_length=2**17)
    cwd: str = ""
    env: dict[str, str] = secret({})
    timeout: float | None = Field(None, gt=0, allow_inf_nan=False)


class RunResponse(Schema):
    """How a program ended. `returncode` is -N for signal N, whose name is in `signal`. Bytes count what it has written,
    `…_dropped` those of them that were over the grant's `output_bytes` and are not in the body.
    """

    returncode: int
    signal: str
    exceeded: str
    duration: float
    cpu_seconds: float
    max_rss_bytes: int
    stdout_bytes: int
    stderr_bytes: int
    stdout_dropped: int
    stderr_dropped: int
