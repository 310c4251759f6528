"""`capsule approvals`: calls of capabilities that wait for somebody who approves them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from capsule.cli import tables
from capsule.cli.operate import run_on, say, show_rows
from capsule.cli.options import address_option, json_option

if TYPE_CHECKING:
    from capsule import AsyncClient
    from capsule.node.info import ApprovalSummary

HEADINGS = ("ID", "OWNER", "SESSION", "CALL", "AGE", "LEFT", "WHY")
LISTED = 400
"""Characters of a call in the list."""
approval_argument = click.argument("approval", metavar="ID")


@click.group()
def approvals() -> None:
    """Approve or deny what code asks to be allowed: needs the role operator, and nobody approves what is their own."""


@approvals.command(name="list")
@address_option
@json_option
def list_(address: str, as_json: bool) -> int:
    """Show the calls that wait for an approval."""

    async def work(client: AsyncClient) -> None:
        found = await client.approvals.list()
        show_rows(as_json, {"approvals": [asdict(one) for one in found]}, HEADINGS, _rows(found))

    return run_on(address, as_json, work)


@approvals.command()
@approval_argument
@address_option
@json_option
def show(approval: str, address: str, as_json: bool) -> int:
    """Show all of one approval, decided or not."""

    async def work(client: AsyncClient) -> None:
        found = asdict(await client.approvals.show(approval))
        rows: list[tuple[object, ...]] = [(name, value) for name, value in found.items() if value not in (None, "", [])]
        show_rows(as_json, found, ("", ""), rows)

    return run_on(address, as_json, work)


@approvals.command()
@approval_argument
@click.option("--session", "for_session", is_flag=True, help="Also what the session calls later under the same grant.")
@click.option("--reason", metavar="TEXT", default="", help="Why; it is recorded.")
@click.option(
    "--break-glass", is_flag=True, help="Although you ask for it yourself: needs the role admin, and a reason."
)
@address_option
@json_option
def approve(approval: str, for_session: bool, reason: str, break_glass: bool, address: str, as_json: bool) -> int:
    """Let a call be made."""

    async def work(client: AsyncClient) -> None:
        flags = {"for_session": for_session, "break_glass": break_glass}
        counts = await client.approvals.approve(approval, reason=reason, **flags)
        await _tell(client, approval, as_json=as_json, counts=counts)

    return run_on(address, as_json, work)


@approvals.command()
@approval_argument
@click.option("--reason", metavar="TEXT", default="", help="Why; the code is told.")
@address_option
@json_option
def deny(approval: str, reason: str, address: str, as_json: bool) -> int:
    """Do not let a call be made: the code gets PermissionError."""

    async def work(client: AsyncClient) -> None:
        counts = await client.approvals.deny(approval, reason=reason)
        await _tell(client, approval, as_json=as_json, counts=counts)

    return run_on(address, as_json, work)


async def _tell(client: AsyncClient, approval: str, *, as_json: bool, counts: bool) -> None:
    found = await client.approvals.show(approval)
    words = {"resolved": "approved", "rejected": "denied", "rejected_timedout": "expired"}
    word = words.get(found.state, "canceled")
    data = {"approval": asdict(found), "decided": counts}
    say(as_json, data, word if counts else f"{word} before{f' by {found.by}' if found.by else ''}")


def _call(one: ApprovalSummary) -> str:
    """It in one line, which is cut, and says so."""
    call = f"{one.capability}({', '.join(f'{name}={value!r}' for name, value in one.arguments.items())})"
    return call if len(call) <= LISTED else f"{call[:LISTED]}… ({len(call) - LISTED} more: capsule approvals show)"


def _rows(found: list[ApprovalSummary]) -> list[tuple[object, ...]]:
    return [
        (
            one.id,
            ", ".join([one.owner, *one.submitters]),
            one.session_name,
            _call(one),
            tables.age(one.age),
            "-" if one.left is None else tables.age(one.left),
            one.why,
        )
        for one in found
    ]
