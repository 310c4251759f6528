"""Questions about code and namespace, and their replies. Offsets count unicode code points."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from capsule_protocol.messages.base import MAX_SUBSHELL, Count, Data, Message, Part


class Reply(Message):
    """What replies share: the id of the request."""

    reply_to: str = ""


class Question(Message):
    """What questions share: the subshell that answers, in its turn. Without one the main shell does, between cells."""

    subshell: Annotated[str, Field(max_length=MAX_SUBSHELL)] = ""


class Complete(Question):
    """What can follow at the cursor?"""

    TYPE: ClassVar[str] = "complete"
    code: str
    cursor: Count


class CompleteReply(Reply):
    """Texts that may replace `start` to `end`."""

    TYPE: ClassVar[str] = "complete_reply"
    matches: list[str] = []
    start: Count = 0
    end: Count = 0
    metadata: Data = {}


class Inspect(Question):
    """What is the object at the cursor? `detail` 1 asks for its source too."""

    TYPE: ClassVar[str] = "inspect"
    code: str
    cursor: Count
    detail: Literal[0, 1] = 0


class InspectReply(Reply):
    """A MIME bundle that describes the object, if there is one."""

    TYPE: ClassVar[str] = "inspect_reply"
    found: bool
    data: Data = {}
    metadata: Data = {}


class IsComplete(Question):
    """Can this code be run, or does it need more lines?"""

    TYPE: ClassVar[str] = "is_complete"
    code: str


class IsCompleteReply(Reply):
    """The answer, and for `incomplete` the indentation of the next line."""

    TYPE: ClassVar[str] = "is_complete_reply"
    status: Literal["complete", "incomplete", "invalid", "unknown"]
    indent: str = ""


class History(Question):
    """Earlier sources: the last `n`, those from `start` to before `stop`, or those that match a glob `pattern`.

    `session` is for a range: 0 is this one, a negative number counts back from it.
    """

    TYPE: ClassVar[str] = "history"
    kind: Literal["tail", "range", "search"] = "tail"
    n: Count | None = None
    session: int = 0
    start: int | None = None
    stop: int | None = None
    pattern: str | None = None
    unique: bool = False
    raw: bool = True
    output: bool = False


class HistoryReply(Reply):
    """Entries of session, line and source (with `output`: a pair of source and output)."""

    TYPE: ClassVar[str] = "history_reply"
    entries: list[Annotated[list[int | str | list[str | None] | None], Field(min_length=3, max_length=3)]] = []


class NamespaceSummary(Question):
    """Which names has the user defined?"""

    TYPE: ClassVar[str] = "namespace_summary"


class NamespaceEntry(Part):
    """One name; never its data. Size and shape are texts for people, "" where there is none."""

    name: str
    type: str = ""
    size: int | str | None = None
    shape: list[int] | str | None = None
    repr: str = ""


class NamespaceSummaryReply(Reply):
    """The names, and how many more there are."""

    TYPE: ClassVar[str] = "namespace_summary_reply"
    entries: list[NamespaceEntry] = []
    truncated: Count = 0


class Subshell(Message):
    """Open a subshell, which runs code beside the main shell, close one, or list those that there are."""

    TYPE: ClassVar[str] = "subshell"
    action: Literal["open", "close", "list"]
    subshell: Annotated[str, Field(max_length=MAX_SUBSHELL)] = ""


class SubshellReply(Reply):
    """The subshells that are open, and which one was opened."""

    TYPE: ClassVar[str] = "subshell_reply"
    subshell: str = ""
    subshells: list[str] = []


class Debug(Message):
    """A request of the Debug Adapter Protocol, with `seq` and `command`. It is answered also while code runs."""

    TYPE: ClassVar[str] = "debug"
    request: Data


class DebugReply(Reply):
    """The response of the Debug Adapter Protocol."""

    TYPE: ClassVar[str] = "debug_reply"
    response: Data = {}


class DebugEvent(Message):
    """An event of the Debug Adapter Protocol; of no execution."""

    TYPE: ClassVar[str] = "debug_event"
    event: Data
