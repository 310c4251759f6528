"""A call in the list of approvals: it says where it is cut."""

from __future__ import annotations

from capsule.cli.approvals import LISTED, _call
from capsule.node.info import ApprovalSummary


def asked(text: str) -> ApprovalSummary:
    where = ("a-1", "pending", "s-1", "one", "e-1", "alice", "shell.run")
    return ApprovalSummary(*where, {"args": text}, "each call needs one", "shell", 4, 0.0)


def test_a_call_in_the_list_is_whole_or_says_that_it_is_not() -> None:
    assert _call(asked("rm -rf /")) == "shell.run(args='rm -rf /')"
    told = _call(asked("rm -rf /" + "A" * 1000))
    assert told.startswith("shell.run(args='rm -rf /AAA")
    left = len("shell.run(args='')") + 8 + 1000 - LISTED
    assert told.endswith(f"A… ({left} more: capsule approvals show)")
