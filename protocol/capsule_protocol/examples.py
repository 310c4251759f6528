"""One example of every message type (some have two): the source of the golden vectors and of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_protocol.messages.base import Failure, Message
from capsule_protocol.messages.capability import CapabilityCancel, CapabilityReply, CapabilityRequest
from capsule_protocol.messages.checkpoints import (
    Discard,
    LeftOut,
    Load,
    LoadReply,
    LoadReport,
    ReadState,
    Save,
    SavedName,
    SaveReply,
    SaveReport,
    WriteState,
)
from capsule_protocol.messages.comms import CommClose, CommInfo, CommInfoReply, CommMsg, CommOpen, Said
from capsule_protocol.messages.execution import (
    Cancel,
    ClearOutput,
    Display,
    Error,
    EventAck,
    Execute,
    Gap,
    InputReply,
    InputRequest,
    Interrupt,
    Output,
    Progress,
    Result,
    Resume,
    Watching,
)
from capsule_protocol.messages.introspection import (
    Complete,
    CompleteReply,
    Debug,
    DebugEvent,
    DebugReply,
    History,
    HistoryReply,
    Inspect,
    InspectReply,
    IsComplete,
    IsCompleteReply,
    NamespaceEntry,
    NamespaceSummary,
    NamespaceSummaryReply,
    Subshell,
    SubshellReply,
)
from capsule_protocol.messages.link import (
    Ack,
    Adopt,
    Adopted,
    Confirm,
    Heartbeat,
    Hello,
    LinkLimits,
    OpenSubshell,
    PendingInput,
    Ready,
    Shutdown,
    Welcome,
)
from capsule_protocol.messages.operations import (
    CancelExecution,
    Drain,
    InterruptSession,
    KillSession,
    ReadLog,
    ReadLogReply,
    Sessions,
)
from capsule_protocol.messages.promises import Promise, Promises, Settle
from capsule_protocol.messages.session import (
    Attach,
    Checkpoint,
    Close,
    Detach,
    Info,
    InfoReply,
    Open,
    Restart,
    Restore,
    Status,
)
from capsule_protocol.messages.streams import (
    Download,
    DownloadReply,
    FileEntry,
    Files,
    FilesReply,
    StreamClose,
    StreamCredit,
    StreamData,
    StreamOpen,
    Upload,
    UploadReply,
)
from capsule_protocol.states import EVENTS

if TYPE_CHECKING:
    from capsule_protocol.envelope import Buffer, Envelope

_OF_AN_EXECUTION = EVENTS | {
    "ack",
    "execute",
    "resume",
    "watching",
    "capability_request",
    "capability_reply",
    "capability_cancel",
    "input_reply",
    "write_state",
    "read_state",
}
_OF_THE_LINK = frozenset(
    {
        *("hello", "welcome", "heartbeat", "shutdown", "sessions", "interrupt_session", "kill_session", "drain"),
        *("read_log", "read_log_reply", "cancel_execution"),
        *("promises", "promise", "settle"),
    }
)
_TIME = 1700000000.25

_BODIES: list[tuple[Message, tuple[Buffer, ...]]] = [
    (Hello(versions=["1.0"], features=["streams"], limits=LinkLimits(message_bytes=67108864), role="client"), ()),
    (Welcome(version="1.0", features=["streams"], limits=LinkLimits(message_bytes=1048576), epoch=1), ()),
    (Ack(), ()),
    (Ready(pid=4711, python="3.11.9", implementation="CPython", worker="0.1.0", reply_to="m_request"), ()),
    (Heartbeat(number=3, rss=50331648, busy=True, serial=2, threads=4), ()),
    (Shutdown(restart=False), ()),
    (Adopt(versions=["1.0"], features=["stdin"], epoch=2, after=17), ()),
    (
        Adopted(
            version="1.0",
            last=18,
            inputs=[PendingInput(request="m_input", number=17, execution="x_1")],
            subshells=[OpenSubshell(name="b_0123456789abcdef", execution_count=3, seconds=0.5)],
        ),
        (),
    ),
    (Confirm(number=64), ()),
    (Open(name="é", env={"A": "1", "B": None}, cwd="/tmp", argv=["x.py"], path=["/tmp"]), ()),  # noqa: S108 (a sample)
    (Open(files=["data/in.csv", "empty"]), (b"a,b\n", b"")),
    (Close(), ()),
    (Attach(name="mine"), ()),
    (Attach(name="mine", watch=True), ()),
    (Attach(name="mine", share=True), ()),
    (Detach(), ()),
    (Restart(), ()),
    (Info(), ()),
    (InfoReply(reply_to="m_request", info={"state": "ready"}), ()),
    (Status(state="busy"), ()),
    (Checkpoint(name="before"), ()),
    (Restore(name="before"), ()),
    (Execute(code="print('hi')\n1 + 1", timeout=2.5, key="k-1"), ()),
    (Output(stream="stdout", text="hi\n"), ()),
    (Output(stream="stderr", text="\u00fc\U0001f600\r", dropped=12), ()),
    (
        Display(data={"text/plain": "<p>", "image/x": {"$buffer": 0}}, display_id="d1", transient={"more": 1}, fence=1),
        (b"\x00\xff\x10",),
    ),
    (
        Display(
            data={
                "application/vnd.jupyter.error": {
                    "ename": "E",
                    "evalue": "m",
                    "traceback": ["Cell In[1], line 1", "E: m"],
                },
                "text/plain": "Cell In[1], line 1\nE: m",
            }
        ),
        (),
    ),
    (ClearOutput(wait=True), ()),
    (Progress(current=3.0, total=10.0, text="rows"), ()),
    (Display(data={"text/plain": "1"}, execution_count=1), ()),
    (Result(text="2", data={"text/plain": "2"}, execution_count=1, duration=0.125, epoch=2), ()),
    (
        Error(
            verdict="error",
            name="ZeroDivisionError",
            message="division by zero",
            traceback=["Cell 1, line 1", "1/0"],
            code="execution_error",
            execution_count=2,
        ),
        (),
    ),
    (Error(code="unsupported", message="there is no message type 'frobnicate'", reply_to="m_request"), ()),
    (Resume(after=3), ()),
    (Watching(), ()),
    (Gap(missing=1), ()),
    (EventAck(executions={"x_execution": 7}), ()),
    (Cancel(execution="x_execution"), ()),
    (Interrupt(), ()),
    (InputRequest(request="i1", prompt="name? ", password=False), ()),
    (InputRequest(request="i2", prompt="deploy? ", choices=["yes", "no"], timeout=60.0), ()),
    (InputReply(request="i1", value="Ada"), ()),
    (InputReply(request="i2", error="eof"), ()),
    (Complete(code="pri", cursor=3), ()),
    (CompleteReply(reply_to="m_request", matches=["print"], start=0, end=3), ()),
    (Inspect(code="len", cursor=2, detail=1), ()),
    (InspectReply(reply_to="m_request", found=True, data={"text/plain": "Signature: len(obj, /)"}), ()),
    (IsComplete(code="for x in y:"), ()),
    (IsCompleteReply(reply_to="m_request", status="incomplete", indent="    "), ()),
    (History(kind="search", pattern="import*", n=10, unique=True), ()),
    (HistoryReply(reply_to="m_request", entries=[[0, 1, "import os"]]), ()),
    (NamespaceSummary(), ()),
    (
        NamespaceSummaryReply(
            reply_to="m_request",
            entries=[NamespaceEntry(name="a", type="ndarray", size=80, shape=[2, 5], repr="array(…)")],
        ),
        (),
    ),
    (CommOpen(comm="c1", target="jupyter.widget", data={"state": {"value": 1}}, metadata={"version": "2.1.0"}), ()),
    (CommMsg(comm="c1", data={"method": "update"}), (b"\x01\x02",)),
    (Subshell(action="open"), ()),
    (SubshellReply(reply_to="m1", subshell="b_0123456789abcdef", subshells=["b_0123456789abcdef"]), ()),
    (Debug(request={"type": "request", "seq": 1, "command": "debugInfo"}), ()),
    (DebugReply(reply_to="m1", response={"type": "response", "request_seq": 1, "success": True}), ()),
    (DebugEvent(event={"type": "event", "event": "stopped", "body": {"threadId": 1}}), ()),
    (CommClose(comm="c1"), ()),
    (CommInfo(target="jupyter.widget"), ()),
    (CommInfoReply(reply_to="m1", comms={"c1": "jupyter.widget"}), ()),
    (Execute(code="", comm=Said(action="message", comm="c1", data={"method": "update"})), (b"\x01",)),
    (CapabilityRequest(request=1, capability="files.read", positional=["data/a.txt"], window=4194304), ()),
    (CapabilityRequest(request=2, capability="files.write", arguments={"path": "data/b"}, more=True), (b"abc",)),
    (CapabilityReply(request=1, body="bytes"), (b"abc",)),
    (CapabilityReply(request=4, value={"size": 3}), ()),
    (CapabilityReply(request=2, outcome="denied", error=Failure(code="capability_denied", message="no grant")), ()),
    (CapabilityCancel(request=3), ()),
    (Execute(code="total", subshell="b_0123456789abcdef"), ()),
    (Execute(code="total", stop_on_error=True, batch="b_1", follows="x_0123456789abcdef"), ()),
    (StreamOpen(stream="t1", metadata={"name": "a.bin"}), ()),
    (StreamData(stream="t1"), (b"\x00" * 8, b"\x01" * 4)),
    (StreamCredit(stream="t1", size=1048576), ()),
    (StreamClose(stream="t1"), ()),
    (StreamClose(stream="t1", error=Failure(code="file_changed", message="a.bin was changed")), ()),
    (Upload(stream="t1", name="data/a.bin"), ()),
    (UploadReply(reply_to="m_request", offset=1048576, digest=64 * "0"), ()),
    (Download(stream="t2", name="data/a.bin"), ()),
    (DownloadReply(reply_to="m_request", size=12, modified=1700000000.5), ()),
    (Files(), ()),
    (FilesReply(reply_to="m_request", entries=[FileEntry(name="data/a.bin", size=12, modified=1700000000.5)]), ()),
    (Save(file="c_1", names=["table"], timeout=60.0), ()),
    (
        SaveReply(
            reply_to="m_request",
            report=SaveReport(
                names=[SavedName(name="table", type="DataFrame", size=512)],
                left_out=[LeftOut(name="log", type="TextIOWrapper", reason="it is an open file", where="log")],
                size=512,
                packages={"pandas": "2.2.3"},
            ),
        ),
        (),
    ),
    (Load(file="c_1", allow_other_interpreter=True), ()),
    (
        LoadReply(
            reply_to="m_request",
            report=LoadReport(restored=["table"], other_versions={"pandas": ["2.2.3", "2.3.0"]}),
            created=_TIME,
        ),
        (),
    ),
    (Discard(file="c_1"), ()),
    (WriteState(file="c_1", max_bytes=1073741824), ()),
    (ReadState(file="c_1", offset=16, size=512, sha256=64 * "0", saved=["table"], packages={"pandas": "2.2.3"}), ()),
    (Sessions(), ()),
    (InterruptSession(name="training"), ()),
    (KillSession(name="training"), ()),
    (ReadLog(execution="x_1", after=2, wait=True), ()),
    (ReadLogReply(reply_to="m_request", first=1, count=1, ended=False), (b"\x93\xa3gap\x81\xa7missing\x01\x90",)),
    (CancelExecution(execution="x_1"), ()),
    (Drain(wait=True), ()),
    (Promises(after="exec:x_1"), ()),
    (Promise(promise="exec:x_1:input:1"), ()),
    (Settle(promise="exec:x_1:input:1", action="resolve", value="Ada"), ()),
    (Settle(promise="exec:x_1:input:2", action="cancel", message="asked by mistake"), ()),
]


def _address(message: Message, buffers: tuple[Buffer, ...]) -> Envelope:
    kind = message.TYPE
    of_execution = kind in _OF_AN_EXECUTION and not getattr(message, "reply_to", "")
    return message.envelope(
        id="m_0123456789abcdef",
        session="" if kind in _OF_THE_LINK else "s_0123456789abcdef",
        execution="x_0123456789abcdef" if of_execution else "",
        sequence=1 if of_execution and kind in EVENTS else 0,
        time=_TIME,
        buffers=buffers,
        epoch=3 if kind == "result" else 0,
    )


def _named() -> list[tuple[str, Envelope]]:
    named: dict[str, Envelope] = {}
    for message, buffers in _BODIES:
        name = message.TYPE if message.TYPE not in named else f"{message.TYPE} 2"
        named[name] = _address(message, buffers)
    return list(named.items())


EXAMPLES: list[tuple[str, Envelope]] = _named()
"""Name and envelope of each example."""
