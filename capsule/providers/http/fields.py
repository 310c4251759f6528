"""Fields of schemas whose values are read by functions, and complaints about them in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def read_by(read: Callable[[T], T], allowed: str) -> AfterValidator:
    """The value is what `read` makes of it; what that raises as ValueError is the complaint."""

    def validate(value: T) -> T:
        try:
            return read(value)
        except ValueError as error:
            words = {"text": str(error), "expected": allowed}
            raise PydanticCustomError("contradiction", "{text}", words) from error

    return AfterValidator(validate)
