"""Which calls need an approval: what a policy may say of it, and whether one call does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

Word = Literal["never", "always", "first"]
REQUEST_BYTES = "request_bytes"
"""What an approval may depend on beside the fields of a request: the size of its body."""


class Above(NamedTuple):
    """Calls need an approval in which one of these fields is above its number."""

    bounds: tuple[tuple[str, float], ...]


def _rule(value: Any) -> Any:
    """What `approval` may be in a file: a word, or `{ above = { FIELD = NUMBER } }`."""
    if isinstance(value, Above) or (isinstance(value, str) and value in get_args(Word)):
        return value
    above = value.get("above") if isinstance(value, dict) and set(value) == {"above"} else None
    if isinstance(above, dict) and above and all(_is_number(number) for number in above.values()):
        return Above(tuple(above.items()))
    allowed = "'never', 'always', 'first', or a table like { above = { request_bytes = 1000000 } }"
    raise PydanticCustomError("contradiction", "{text}", {"text": f"is {str(value)[:80]!r}", "expected": allowed})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Rule = Annotated[Word | Above, BeforeValidator(_rule)]


@dataclass(frozen=True, slots=True)
class Approval:
    """Whether a call waits until somebody has approved it, and for how long. `above`: if one of these is exceeded."""

    rule: Literal["never", "always", "first", "above"] = "never"
    above: tuple[tuple[str, float], ...] = ()
    timeout: float = 300.0

    def needed(self, request: Any, request_bytes: int | None, *, approved: bool = False) -> str:
        """Why this call needs an approval, or "". `approved`: the session has one for this grant.

        A field without a value counts as one that is above any number. So does a body whose size (`request_bytes`) is
        not known before it is read: None.
        """
        if self.rule in {"never", "always"} or (self.rule == "first" and approved):
            return "each call needs one" if self.rule == "always" else ""
        if self.rule == "first":
            return "it is the first call under this grant"
        for name, bound in self.above:
            value = request_bytes if name == REQUEST_BYTES else getattr(request, name, None)
            if _exceeds(value, bound):
                return f"{name} is {'without a bound' if value is None else str(value)[:80]}, and above {bound:g}"
        return ""


def _exceeds(value: Any, bound: float) -> bool:
    """Whether it may be more; so may be what is no number."""
    try:
        return value is None or not value <= bound
    except (TypeError, ArithmeticError):
        return True
