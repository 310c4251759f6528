"""Reading a policy out of its TOML file. All that is wrong is told, with its line."""

from __future__ import annotations

import os
import stat
import tomllib
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field, ValidationError, model_validator

from capsule.broker.compiling import Compiler
from capsule.broker.consent import Rule
from capsule.broker.grants import DenialTable, GrantTable, Name
from capsule.broker.limits import LimitsTable
from capsule.broker.packs import DEFAULT_PACK, PACKS, AuditSettings, BudgetSettings, Level, Mode, Pack, PackName
from capsule.broker.references import complaint, line_of, missing
from capsule.settings.base import Config, Seconds
from capsule.settings.complaints import Complaint, complaints
from capsule.settings.lines import lines
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from capsule.broker.grants import Denial, Granted
    from capsule.broker.sdk import Descriptor

MAX_BYTES = 8 * 2**20
MAX_RULES = 10_000
"""Grants, and denials."""


class PolicyFile(Config):
    """The top level of the file. What is not given, is the pack's."""

    version: Literal[1]
    name: Name
    pack: PackName = DEFAULT_PACK
    mode: Mode = "enforce"
    sandbox: Level
    approval: Rule
    approval_timeout: Seconds
    ceiling: LimitsTable
    budget: BudgetSettings
    audit: AuditSettings
    grants: Annotated[tuple[GrantTable, ...], Field(max_length=MAX_RULES)] = ()
    denials: Annotated[tuple[DenialTable, ...], Field(max_length=MAX_RULES)] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_pack(cls, data: Any) -> Any:
        name = data.get("pack", DEFAULT_PACK)
        pack = PACKS[name if name in get_args(PackName) else DEFAULT_PACK].model_dump(exclude={"summary"})
        merged = pack | data
        for table in ("ceiling", "budget", "audit"):
            if isinstance(data.get(table), dict):
                merged[table] = pack[table] | data[table]
        return merged

    def as_pack(self) -> Pack:
        """The pack with all that the file says otherwise."""
        values = {name: getattr(self, name) for name in Pack.model_fields if name != "summary"}
        return PACKS[self.pack].model_copy(update=values)


class Head(NamedTuple):
    """What a policy says beside its rules. `digest` is of its file, `pack` with what the file says otherwise."""

    name: str
    digest: str
    mode: Mode
    pack: Pack
    pack_name: str


class Content(NamedTuple):
    """What a file says."""

    head: Head
    granted: tuple[Granted, ...]
    denials: tuple[Denial, ...]


def read(
    path: str | os.PathLike[str], descriptors: Mapping[str, Descriptor], secrets: Collection[str] | None = None
) -> Content:
    """What this file says, for these providers; raises as `policy.load` does."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise _refused(file, [(0, "", f"cannot be read: {error.strerror}", "a TOML file")]) from error
    if mode & stat.S_IWOTH:
        raise _refused(file, [(0, "", "can be written by anybody", "a file that others cannot write: chmod o-w")])
    if len(data) > MAX_BYTES:
        raise _refused(file, [(0, "", "is too large", f"at most {MAX_BYTES} bytes")])
    return parse(data, file, descriptors, secrets)


def parse(
    data: bytes, file: Path, descriptors: Mapping[str, Descriptor], secrets: Collection[str] | None = None
) -> Content:
    """What these bytes say, which stand in `file`."""
    try:
        text = data.decode("utf-8")
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # what tomllib and the decoder raise
        raise _refused(file, [(_line_of(error), "", f"is not TOML: {error}", "TOML in UTF-8")]) from error
    places = lines(text)
    digest = blake2b(data, digest_size=16).hexdigest()
    try:
        found = PolicyFile.model_validate({"name": file.stem} | values)
    except ValidationError as error:
        raise _refusal(file, complaints(PolicyFile, error), values, places) from error
    compiler = Compiler(found.ceiling, found.approval, found.approval_timeout, descriptors)
    granted = tuple(
        compiler.grant(number, table, line(places, "grants", number)) for number, table in enumerate(found.grants)
    )
    denials = tuple(
        compiler.denial(number, table, line(places, "denials", number)) for number, table in enumerate(found.denials)
    )
    wrong = [*compiler.wrong, *(() if secrets is None else _unknown_secrets(found, secrets, text, places))]
    if wrong:
        raise _refusal(file, wrong, values, places)
    return Content(Head(found.name, digest, found.mode, found.as_pack(), found.pack), granted, denials)


Places = dict[tuple[str, ...], int]


def line(places: Places, *path: str | int) -> int:
    """Where this stands, or what it stands in."""
    parts = tuple(str(part) for part in path)
    found = (places.get(parts[:end]) for end in range(len(parts), 0, -1))
    return next((number for number in found if number is not None), 1)


def _unknown_secrets(found: PolicyFile, secrets: Collection[str], text: str, places: Places) -> list[Complaint]:
    """Those that are named and not there, whose places are told too: a statement may have many lines."""
    told = []
    for one in missing(found.grants, secrets):
        places[one.path] = line_of(one, text, line(places, *one.path))
        told.append(complaint(one, secrets))
    return told


def _refusal(file: Path, found: list[Complaint], values: dict[str, Any], places: Places) -> ArgumentError:
    paths = {one.path for one in found}
    causes = [one for one in found if not any(path != one.path and path[: len(one.path)] == one.path for path in paths)]
    return _refused(
        file, [(line(places, *one.path), _shown(one.path, values), one.message, one.allowed) for one in causes]
    )


def _shown(path: tuple[str, ...], values: dict[str, Any]) -> str:
    """The path of an option, with the name of a grant in the place of its number."""
    parts: list[str] = []
    inner: Any = values
    for part in path:
        inner = _inside(inner, part)
        named = inner.get("name") if isinstance(inner, dict) and part.isdecimal() else None
        parts.append(named[:64] if isinstance(named, str) else part)
    return ".".join(parts)


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
        return value[int(part)]
    return None


def _refused(file: Path, told: list[tuple[int, str, str, str]]) -> ArgumentError:
    """One error for all that is wrong, whose message has the first."""
    told = sorted(told, key=lambda one: one[0])
    number, option, message, allowed = told[0]
    place = f"{file}:{number}" if number else str(file)
    text = ": ".join(part for part in (place, option, message) if part)
    if len(told) > 1:
        text += f" (and {len(told) - 1} more: `capsule policy check` tells all)"
    error = ArgumentError("policy", text, allowed=allowed or None, code="policy_refused")
    error.details |= {
        "file": str(file),
        "line": number,
        "complaints": [{"line": at, "option": path, "message": words, "allowed": may} for at, path, words, may in told],
    }
    return error


def _line_of(error: Exception) -> int:
    """Of an error of tomllib, which tells it in words."""
    words = str(error).partition("(at line ")[2]
    number = words.partition(",")[0]
    return int(number) if number.isdecimal() else 0
