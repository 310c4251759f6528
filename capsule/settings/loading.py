"""Reading a configuration: flags come before variables, those before the file, and that before the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from capsule.config import NodeConfig
from capsule.settings.complaints import Complaint, complaints
from capsule.settings.sources import DEFAULTS, Layer, Settings, chosen_file, from_file, from_flags, from_variables
from capsule.settings.tree import values
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from capsule.settings.sources import Flag, Kind


files: set[Path] = set()
"""Those from which this process has read a configuration."""


class Setting(NamedTuple):
    """A value and where it comes from; `place` is the file and its line, the variable, or the flag."""

    path: tuple[str, ...]
    value: Any
    origin: Kind
    place: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, the file that was read for it, and its layers, the first of which wins."""

    config: NodeConfig
    file: Path | None
    layers: tuple[Layer, ...]

    def settings(self) -> Iterator[Setting]:
        """Every value with its origin."""
        for path, value, _ in values(self.config):
            found = [layer for layer in self.layers if layer.depth(path) == len(path)] or [DEFAULTS]
            merged = found if isinstance(value, dict) else found[:1]
            yield Setting(path, value, found[0].kind, ", ".join(layer.place(path) for layer in merged))


def read(path: str | os.PathLike[str] | None = None, flags: Iterable[Flag] = ()) -> Loaded:
    """The configuration of this file, or of the one that is found, with all that comes before it.

    Raises ArgumentError, whose `details["complaints"]` has all that is wrong.
    """
    file = chosen_file(path)
    variables, wrong = from_variables()
    layers = [from_flags(flags), variables]
    if file is not None:
        files.add(file)
        layers.append(from_file(file))
    layers.append(DEFAULTS)
    told = [_tell(complaint, complaint.path[0]) for complaint in wrong]
    try:
        settings = Settings(layers=layers)  # type: ignore[call-arg]  # no field, but what the sources are made of
    except ValidationError as error:
        found = complaints(NodeConfig, error)
        raise _refusal([*told, *(_tell(one, _place(one.path, layers)) for one in found)]) from error
    if told:
        raise _refusal(told)
    return Loaded(NodeConfig(**dict(settings)), file, tuple(layers))


def _place(path: tuple[str, ...], layers: list[Layer]) -> str:
    """Where the cause of a complaint stands: the layer that has most of the path, and of those the first."""
    return max(layers, key=lambda layer: layer.depth(path)).place(path)


def _tell(complaint: Complaint, place: str) -> dict[str, str]:
    error = complaint.as_error()
    option = ".".join(complaint.path)
    text = error.message if option != place else error.message.removeprefix(f"{option}: ")
    return {"place": place, "option": option, "code": error.code, "message": f"{place}: {text}"}


def _refusal(told: list[dict[str, str]]) -> ArgumentError:
    told = sorted(told, key=_line)  # else unknown options come last
    first, *others = told
    more = f" (and {len(others)} more: `capsule config check` tells all)" if others else ""
    error = ArgumentError("config", first["message"] + more, code=first["code"])
    error.details["complaints"] = told
    return error


def _line(complaint: dict[str, str]) -> int:
    line = complaint["place"].rpartition(":")[2]
    return int(line) if line.isdecimal() else 0
