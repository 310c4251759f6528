"""What a running node takes of a new configuration, and what has to wait for a restart. It only plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic import BaseModel, SecretStr

from capsule.settings.tree import Option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.broker.broker import Reloaded
    from capsule.config import NodeConfig

LONGEST = 80
"""Characters of a value that are shown."""


class Change(NamedTuple):
    """An option that has another value in the new configuration, or a table that only one of the two has (None)."""

    path: tuple[str, ...]
    old: Any
    new: Any

    def __str__(self) -> str:
        name = ".".join(self.path)
        if self.new is None and isinstance(self.old, BaseModel):
            return f"{name} is gone"
        if self.old is None and isinstance(self.new, BaseModel):
            return f"{name} is new"
        if isinstance(self.old, dict):  # may have secrets in it, which do not belong into a log
            return f"{name} has changed"
        return f"{name} = {_short(self.new)} (was {_short(self.old)})"


@dataclass(slots=True)
class Reload:
    """The configuration from now on, what is new in it, and what of the new one is not in it.

    `policy`: what became of that, if there is one.
    """

    config: NodeConfig
    changed: list[Change] = field(default_factory=list)
    restart: list[Change] = field(default_factory=list)
    policy: Reloaded | None = None


def plan(old: NodeConfig, new: NodeConfig) -> Reload:
    """What to take of the new configuration: the options with `reload`, and new environments."""
    reload = Reload(old)
    reload.config = cast("NodeConfig", _merge(old, new, (), reload))
    return reload


def _merge(old: BaseModel, new: BaseModel, path: tuple[str, ...], reload: Reload) -> BaseModel:
    taken: dict[str, Any] = {}
    for name, info in type(old).model_fields.items():
        before, after, here = getattr(old, name), getattr(new, name), (*path, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            taken[name] = _merge(before, after, here, reload)
        elif _has_tables(before) or _has_tables(after):
            taken[name] = _merge_tables(before, after, here, reload)
        elif before != after:
            reloadable = Option(here, info).reloadable
            (reload.changed if reloadable else reload.restart).append(Change(here, before, after))
            taken[name] = after if reloadable else before
    return old.model_copy(update=taken)


def _merge_tables(
    old: Mapping[str, BaseModel], new: Mapping[str, BaseModel], path: tuple[str, ...], reload: Reload
) -> dict[str, BaseModel]:
    """One that is gone may still be in use: it stays."""
    taken = dict(old)
    for name, after in new.items():
        here = (*path, name)
        if name in old:
            taken[name] = _merge(old[name], after, here, reload)
        else:
            reload.changed.append(Change(here, None, after))
            taken[name] = after
    reload.restart += [Change((*path, name), before, None) for name, before in old.items() if name not in new]
    return taken


def _has_tables(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(one, BaseModel) for one in value.values())


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        return str(value)
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
