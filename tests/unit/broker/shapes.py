"""Providers for tests of policies: only what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Literal

from capsule.broker.policy import Policy, Query, load
from capsule.broker.sdk import Descriptor, Empty, Limits, Operation, Schema, ScopeSchema, secret


class Root(ScopeSchema):
    path: str
    mode: Literal["ro", "rw"] = "ro"


class FilesScope(ScopeSchema):
    roots: dict[str, Root]


class ReadRequest(Schema):
    path: str
    offset: int = 0
    length: int | None = None


class WriteRequest(Schema):
    path: str
    token: str = secret("")


class FetchScope(ScopeSchema):
    hosts: tuple[str, ...] = ()


class FetchRequest(Schema):
    url: str
    seconds: float = 1.0


FILES = Descriptor(
    name="files",
    version="1",
    operations={
        "read": Operation("Read a file", ReadRequest, Empty, effects=False, gives_body=True),
        "list": Operation("List a directory", WriteRequest, Empty, effects=False),
        "write": Operation("Write a file", WriteRequest, Empty, takes_body=True, limits=Limits(concurrent=2)),
    },
    scope=FilesScope,
)
HTTP = Descriptor(
    name="http", version="1", operations={"fetch": Operation("Fetch", FetchRequest, Empty)}, scope=FetchScope
)
SYSTEM = Descriptor(name="system", version="1", operations={"time": Operation("The time", Empty, Empty, effects=False)})
DESCRIPTORS: Mapping[str, Descriptor] = {one.name: one for one in (FILES, HTTP, SYSTEM)}


def policy(folder: Path, text: str, descriptors: Mapping[str, Descriptor] = DESCRIPTORS) -> Policy:
    """The policy that this text is; its first line is the text's first line that is not empty."""
    file = folder / "policy.toml"
    file.write_text(dedent(text).lstrip("\n"), encoding="utf-8")
    return load(file, descriptors)


def ask(capability: str, principal: str = "alice", environment: str = "default", session: str = "") -> Query:
    return Query(capability, principal, environment, session)
