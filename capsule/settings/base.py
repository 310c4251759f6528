"""What all configuration is made of: a frozen model, options that describe themselves, and bounds of numbers."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

Seconds = Annotated[float, Field(gt=0, le=86_400 * 366)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
CountFrom1 = Annotated[int, Field(ge=1, le=1_000_000_000)]

MAX_BYTES = 2**48
"""More memory than a machine has, and less than numbers of the system overflow at."""

MIN_OPEN_FILES = 128
"""A worker has about 25 descriptors of its own, some of them from number 64 on; the rest is for the code."""

Bytes = Annotated[int, Field(ge=2**20, le=MAX_BYTES)]


class Config(BaseModel):
    """The base of all configuration: immutable, and an unknown option is an error that lists the known ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A checked instance; raises ArgumentError naming the argument and what is allowed."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            from capsule.settings.complaints import complaints  # late: only who errs needs it

            raise complaints(cls, error)[0].as_error() from error


def option(default: Any, description: str, *, reload: bool = False, example: Any = None) -> Any:
    """A field of a configuration, from which all else comes: its variable, what `capsule config` says of it, and, made
    by `python -m capsule.settings.pages docs`, the schema, the example file and the tables of the reference. With None
    as its default it has an example.

    With `reload`, `capsule serve` takes a new value on SIGHUP. It may be said of a field that is read from the
    configuration of node or front whenever it is needed, and never copied.
    """
    examples = None if example is None else [example]
    return Field(default, description=description, examples=examples, json_schema_extra={"x-reload": reload})


def _absolute(value: Path) -> Path:
    if not value.is_absolute() or str(value) in {"/", "/proc", "/sys", "/dev"}:
        raise PydanticCustomError(
            "absolute_path",
            "Input should be a path",
            {"expected": "an absolute path that is not '/' or the system's own"},
        )
    return value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""What is named to the sandbox: relative to nothing, and not everything."""


def contradiction(text: str, expected: object) -> PydanticCustomError:
    """What is wrong with an option because of another one, or of a value that may be secret."""
    return PydanticCustomError("contradiction", "{text}", {"text": text, "expected": expected})
