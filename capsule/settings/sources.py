"""The layers of configuration: flags, variables, a file, defaults. Each knows where its values stand."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from capsule.config import FILE_NAME, PREFIX, NodeConfig, is_variable
from capsule.settings.complaints import Complaint, unknown
from capsule.settings.lines import lines
from capsule.settings.tree import exists, may_be_none, model_at, options
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

DELIMITER = "__"
FILE_VARIABLE = "CAPSULE_CONFIG"
OTHERS = frozenset({FILE_VARIABLE, "CAPSULE_KEY", "CAPSULE_KERNELS_IDLE", "CAPSULE_NODE"})
"""Variables with the prefix that are no options of a node; whoever reads another one adds it here."""

NONE = "none"
"""TOML and variables have no null: this text stands for None, where None is allowed."""

Kind = Literal["default", "file", "environment", "flag"]
Path_ = tuple[str, ...]


class Flag(NamedTuple):
    """An option that was given on the command line."""

    name: str
    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class Layer:
    """Values, and where they stand: places by path, which hold for what is below too."""

    kind: Kind
    data: dict[str, Any] = field(default_factory=dict)
    places: Mapping[Path_, str] = field(default_factory=dict)

    def depth(self, path: Path_) -> int:
        """How much of the path there is in this layer."""
        inner: Any = self.data
        for depth, part in enumerate(path):
            if not isinstance(inner, dict) or part not in inner:
                return depth
            inner = inner[part]
        return len(path)

    def place(self, path: Path_) -> str:
        """Where the value stands: a file and its line, a variable, a flag; all of them, if it is put together."""
        found = (self.places.get(path[:end]) for end in range(len(path), -1, -1))
        parts = [place for part, place in self.places.items() if part[: len(path)] == path]
        return next((place for place in found if place is not None), ", ".join(parts) or self.kind)


class Settings(NodeConfig, BaseSettings):
    """The model of a node as pydantic-settings merges it out of `layers`, its only argument."""

    model_config = SettingsConfigDict(extra="forbid", env_prefix=PREFIX, env_nested_delimiter=DELIMITER)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the layers take the place of all of them
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What comes first wins."""
        assert isinstance(init_settings, InitSettingsSource)
        return tuple(_Source(settings_cls, layer) for layer in init_settings.init_kwargs["layers"])


class _Source(PydanticBaseSettingsSource):
    """A layer as pydantic-settings wants it."""

    def __init__(self, settings: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._layer.data.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._layer.data


class _Variables(EnvSettingsSource):
    """Names are read without regard to case, but for the names of the variables of an environment."""

    def __init__(self, values: Mapping[Path_, str]) -> None:
        super().__init__(Settings)
        self.env_vars = {self.env_prefix.lower() + DELIMITER.join(path): value for path, value in values.items()}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """What is no JSON stays text, which the model refuses with all that belongs to a refusal."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def from_flags(flags: Iterable[Flag]) -> Layer:
    """The options of the command line; those that were not given have the value None."""
    data: dict[str, Any] = {}
    given = [flag for flag in flags if flag.value is not None]
    for flag in given:
        inner = data
        for part in flag.path[:-1]:
            inner = inner.setdefault(part, {})
        inner[flag.path[-1]] = flag.value
    return Layer("flag", written(data, Path.cwd()), {flag.path: flag.name for flag in given})


def from_variables() -> tuple[Layer, list[Complaint]]:
    """The variables `CAPSULE_…` of our environment, and those among them that name no option."""
    given = {name: path(name) for name in os.environ if is_variable(name) and name not in OTHERS}
    known = {name: path for name, path in given.items() if exists(NodeConfig, path)}
    wrong = [_unknown_variable(name, path) for name, path in given.items() if name not in known]
    data = _Variables({path: os.environ[name] for name, path in known.items()})()
    return Layer("environment", written(data, Path.cwd()), {path: name for name, path in known.items()}), wrong


def path(variable: str) -> Path_:
    """The path of the option that a variable names. Names below `env` are those of variables, and keep their case."""
    parts = variable[len(PREFIX) :].split(DELIMITER)
    low = [part.lower() for part in parts]
    kept = 3 if low[0] == "environments" and low[2:3] == ["env"] else len(low)
    return (*low[:kept], *parts[kept:])


def variable(path: Path_) -> str:
    """The variable that sets this option."""
    return PREFIX + DELIMITER.join(path).upper()


def from_file(file: Path) -> Layer:
    """A TOML file. Raises ArgumentError if it cannot be read, or is none."""
    try:
        text = file.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise ArgumentError("config", f"{file} cannot be read: {error.strerror}", allowed="a TOML file") from error
    except ValueError as error:  # what tomllib and the decoder raise
        raise ArgumentError("config", f"{file} is not TOML: {error}", allowed="a TOML file") from error
    places = {path: f"{file}:{line}" for path, line in lines(text).items()}
    return Layer("file", written(data, file.parent), {(): str(file), **places})


def chosen_file(path: str | os.PathLike[str] | None) -> Path | None:
    """The file that was asked for, else what `CAPSULE_CONFIG` names, else that of the working directory, if any."""
    named = path if path is not None else os.environ.get(FILE_VARIABLE)
    file = Path(FILE_NAME if named is None else named).absolute()
    return file if named is not None or file.exists() else None


DEFAULTS = Layer("default", {"environments": {"default": {}}})
"""There is always one environment; all other defaults are the model's."""


def _unknown_variable(name: str, path: Path_) -> Complaint:
    """Known are the variables of the table that it is in, or all if there is no such table."""
    beside = model_at(NodeConfig, path[:-1])
    names = [variable(option.path) for option in options(NodeConfig)]
    if beside is not None and len(path) > 1:
        names = [variable((*path[:-1], option.path[0])) for option in options(beside)]
    return unknown((name,), name.upper(), names)


def written(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What was written, as the model takes it."""
    return _absolute(_with_none(data), folder)


def _with_none(data: dict[str, Any], path: Path_ = ()) -> dict[str, Any]:
    for name, value in data.items():
        here = (*path, name)
        if isinstance(value, dict):
            _with_none(value, here)
        elif value == NONE and may_be_none(NodeConfig, here):
            data[name] = None
    return data


def _absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with absolute paths: relative ones begin at `folder`. What is of a wrong type stays as it is."""
    _join(data, "directory", folder)
    serve, environments = data.get("serve"), data.get("environments")
    if isinstance(serve, dict):
        _join(serve, "directory", folder)
    for fields in environments.values() if isinstance(environments, dict) else ():
        if isinstance(fields, dict):
            _join_all(fields, folder)
    return data


def _join_all(fields: dict[str, Any], folder: Path) -> None:
    python, path = fields.get("python"), fields.get("path")
    if isinstance(python, str) and os.sep in python and not python.startswith("~"):
        fields["python"] = str(folder / python)
    if isinstance(path, list):
        fields["path"] = [str(folder / part) if isinstance(part, str) else part for part in path]


def _join(fields: dict[str, Any], name: str, folder: Path) -> None:
    if isinstance(fields.get(name), str):
        fields[name] = folder / fields[name]
