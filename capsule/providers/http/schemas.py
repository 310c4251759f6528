"""What `http` is asked for and what it answers."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from capsule.broker.sdk import Limits, Operation, Schema, secret
from capsule.providers.http.fields import read_by
from capsule.providers.http.headers import checked
from capsule.providers.http.urls import URL_LENGTH, Place, parse

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
# One opens a tunnel to anywhere, the other has a server send back what it got, secrets included.
_NO_METHODS = ("CONNECT", "TRACE")
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, or another one but CONNECT and TRACE"
_PARAMETERS = 256
TARGET_LENGTH = 2 * URL_LENGTH


def normal_method(text: str) -> str:
    """A method in capitals. Raises ValueError if it is none, or none that can be used."""
    name = text.upper()
    if not _METHOD.fullmatch(name) or name in _NO_METHODS:
        raise ValueError(f"{text[:40]!r} is not a method that can be used")
    return name


def _url(text: str) -> str:
    return str(parse(text))


def _parameters(values: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
    many = [value if isinstance(value, list) else [value] for value in values.values()]
    if sum(map(len, many)) > _PARAMETERS:
        raise ValueError(f"there are more than {_PARAMETERS} parameters")
    if sum(len(value) for each in many for value in each) + sum(map(len, values)) > URL_LENGTH:
        raise ValueError(f"the parameters are longer than {URL_LENGTH} characters")
    return values


class Fetch(Schema):
    """One request. Its body, if it has one, comes beside it."""

    url: Annotated[str, read_by(_url, "https://host/path, say")]
    method: Annotated[str, read_by(normal_method, METHODS)] = "GET"
    headers: Annotated[
        dict[str, str], read_by(checked, "names and values of headers that are not the node's to set")
    ] = secret({})
    params: Annotated[dict[str, str | list[str]], read_by(_parameters, "texts, or lists of texts, by name")] = secret(
        {}
    )
    timeout: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    follow_redirects: bool = True
    raise_for_status: bool = False

    @model_validator(mode="after")
    def _short(self) -> Self:
        if len(self.place().target) > TARGET_LENGTH:
            raise ValueError(f"the URL with its parameters is longer than {TARGET_LENGTH} characters")
        return self

    def place(self) -> Place:
        """Where it goes."""
        return parse(self.url).with_parameters(self.pairs())

    def pairs(self) -> list[tuple[str, str]]:
        """The parameters, one by one."""
        every = ((name, value if isinstance(value, list) else [value]) for name, value in self.params.items())
        return [(name, value) for name, values in every for value in values]


class Stream(Fetch):
    """One request whose answer is used while it comes: what is not a success is an error, and not its bytes."""

    raise_for_status: bool = True


class Fetched(Schema):
    """What a server answered, beside the body.

    `url`: where the answer came from, after redirects. `headers`: by their names in small letters; one that stands
    there several times is joined by commas, except Set-Cookie, whose lines are in `set_cookie`. `size`: of the body as
    it was handed over; `transferred`: of the body as it was sent, compressed perhaps.
    """

    status: int
    reason: str
    url: str
    http_version: str
    headers: dict[str, str]
    set_cookie: tuple[str, ...]
    redirects: tuple[str, ...]
    size: int
    transferred: int
    elapsed: float


FETCH = Operation(
    summary="One request over HTTP; the whole answer.",
    request=Fetch,
    response=Fetched,
    takes_body=True,
    gives_body=True,
    limits=Limits(timeout=60.0, per_second=20.0, request_bytes=2**24, response_bytes=2**25),
)
STREAM = Operation(
    summary="One request over HTTP; the body of the answer as it comes.",
    request=Stream,
    response=Fetched,
    takes_body=True,
    gives_body=True,
    limits=Limits(timeout=600.0, per_second=20.0, request_bytes=2**30, response_bytes=2**30),
)
