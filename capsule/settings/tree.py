"""The options of a configuration as a tree: models in models, and tables whose names the user chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo

NAME = "NAME"
"""Stands in the path of an option for a name that the user chooses."""


class Option(NamedTuple):
    """An option that has a value of its own, and where it stands."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def reloadable(self) -> bool:
        """Whether a running service takes a new value."""
        extra = self.field.json_schema_extra
        return isinstance(extra, dict) and extra.get("x-reload") is True


class Value(NamedTuple):
    """An option of one configuration."""

    path: tuple[str, ...]
    value: Any
    option: Option


def options(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Option]:
    """All options of a model and of the models in it."""
    for name, field in model.model_fields.items():
        inner = _inner(field.annotation)
        if inner is None:
            yield Option((*path, name), field)
        else:
            below = (*path, name, NAME) if _is_table(field.annotation) else (*path, name)
            yield from options(inner, below)


def values(config: BaseModel, path: tuple[str, ...] = (), place: tuple[str, ...] = ()) -> Iterator[Value]:
    """All options of a configuration with their values; `place` is the path of the option."""
    for name, field in type(config).model_fields.items():
        value, here, option = getattr(config, name), (*path, name), (*place, name)
        if isinstance(value, BaseModel):
            yield from values(value, here, option)
        elif _inner(field.annotation) is not None and isinstance(value, dict):
            for key, one in value.items():
                yield from values(one, (*here, key), (*option, NAME))
        else:
            yield Value(here, value, Option(option, field))


def model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that stands at this path, if one does."""
    annotation: Any = model
    for part in path:
        annotation = _below(annotation, part)
    return annotation if _is_model(annotation) else _inner(annotation) if not _is_table(annotation) else None


def may_be_none(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether None is a value of the option at this path."""
    annotation: Any = model
    for part in path:
        annotation = _below(annotation, part)
    return type(None) in get_args(annotation)


def exists(model: type[BaseModel], path: Sequence[str]) -> bool:
    """Whether an option, or a table of options, can stand at this path."""
    annotation: Any = model
    for part in path:
        annotation = _below(annotation, part)
    return annotation is not None


def is_secret(model: type[BaseModel], path: Sequence[str | int]) -> bool:
    """Whether the value at this path is not for everybody's eyes."""
    annotation: Any = model
    for part in path:
        annotation = _below(annotation, part)
    kinds = (annotation, *get_args(annotation))
    return any(isinstance(kind, type) and issubclass(kind, SecretStr) for kind in kinds)


def _below(annotation: Any, part: str | int) -> Any:
    """The type of what stands under this name or number in a value of this type; None: nothing can."""
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return None if field is None else field.annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        return arguments[-1]
    if origin in {tuple, list}:
        return arguments[0]
    found = [_below(argument, part) for argument in arguments]
    return next((one for one in found if one is not None), None)


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model of the tables below an option; lists of tables are values like others."""
    if _is_model(annotation):
        model: type[BaseModel] = annotation
        return model
    if get_origin(annotation) in {tuple, list}:
        return None
    return next((inner for one in get_args(annotation) if (inner := _inner(one)) is not None), None)


def _is_table(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_is_table(one) for one in get_args(annotation))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
