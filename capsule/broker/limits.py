"""Limits as people write them, and what holds in the end: what a grant says, below the ceiling of its pack."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from capsule.broker.sdk import Limits
from capsule.settings.base import Config

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE = "none"
"""TOML has no null: this text stands for "no bound"."""

Bytes = Annotated[int, Field(ge=0, le=2**48)]


class LimitsTable(Config):
    """The fields of Limits; None, in a file "none": no bound. Which of them were given, `model_fields_set` tells."""

    timeout: Annotated[float, Field(gt=0, le=86_400 * 7)] | None = None
    per_second: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    concurrent: Annotated[int, Field(ge=1, le=100_000)] | None = None
    request_bytes: Bytes | None = None
    response_bytes: Bytes | None = None
    total_bytes: Bytes | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_none(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: None if value == NONE else value for name, value in data.items()}


NAMES = tuple(field.name for field in fields(Limits))


def exceeds(value: float | None, ceiling: float | None) -> bool:
    """Whether a limit is above the ceiling; None is above all."""
    return ceiling is not None and (value is None or value > ceiling)


def effective(given: Mapping[str, Any], default: Limits, ceiling: LimitsTable) -> Limits:
    """What is given, else the operation's own, and never more than the ceiling."""
    values = {}
    for name in NAMES:
        value, bound = given.get(name, getattr(default, name)), getattr(ceiling, name)
        values[name] = bound if exceeds(value, bound) else value
    return Limits(**values)
