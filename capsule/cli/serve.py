"""`capsule serve`: the node as a service; `capsule wait-ready`: wait until it answers."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.cli.configured import configured, given
from capsule.cli.options import address_option
from capsule.platforms import check_node
from capsule.runtime import TCP
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from capsule.broker.broker import Reloaded
    from capsule.config import NodeConfig
    from capsule.node.front.front import Front
    from capsule.node.front.reloading import Told


@click.command()
@configured
def serve(config: str | None, **flags: Any) -> int:
    """Run the node as a service for the clients of this user.

    SIGTERM or Ctrl-C drains: nothing new is taken, what runs may end; a second one ends it at once. SIGHUP reads the
    configuration again. Exit code: 0 it was told to end, 2 wrong usage or configuration, 3 it cannot listen or its
    environment cannot be started.
    """
    from capsule.node.front.reloading import Reloading
    from capsule.node.front.service import Service
    from capsule.settings.loading import read

    def load() -> NodeConfig:
        return read(config, given(flags)).config

    async def main() -> None:
        await Service(load(), Reloading(load, _tell_reload)).run(_tell)

    try:
        check_node()
        asyncio.run(main())
    except CapsuleError as error:
        click.echo(f"capsule serve: {error}", err=True)
        return exits.of_error(error)
    return exits.Exit.OK


def _tell(front: Front) -> None:
    for address in front.addresses:
        click.echo(f"listening at {address}")
    click.echo(f'connect with  capsule.Client("{front.addresses[0]}")')
    for address in front.addresses:
        if address.startswith(TCP) and not front.config.insecure:
            click.echo(
                f'from elsewhere  capsule.Client("{_named(address)}", key="FILE"), with one of `capsule keys new`'
            )
    if front.http:
        click.echo(f"metrics at {front.http}/metrics")
    sys.stdout.flush()


def _named(address: str) -> str:
    """An address that others can use: this machine has a name, and "all addresses of this machine" is none of it."""
    host, _, port = address.removeprefix(TCP).rpartition(":")
    return f"{TCP}{socket.gethostname()}:{port}" if host in ALL_ADDRESSES else address


def _tell_reload(told: Told) -> None:
    """Changes are told on stdout, a configuration that was refused on stderr."""
    if isinstance(told, CapsuleError):
        for complaint in told.details.get("complaints", [{"message": told.message}]):
            click.echo(f"capsule serve: not reloaded: {complaint['message']}", err=True)
        click.echo("capsule serve: the configuration that was in force stays so", err=True)
    elif isinstance(told, OSError):
        click.echo(f"capsule serve: not reloaded, the configuration that was in force stays so: {told}", err=True)
    else:
        for change in told.changed:
            click.echo(f"reloaded: {change}")
        for change in told.restart:
            click.echo(f"needs a restart: {change}")
        policy = None if told.policy is None else _of_policy(told.policy)
        if policy:
            click.echo(policy)
        if not told.changed and not told.restart and policy is None:
            click.echo("reloaded: nothing has changed")
    sys.stdout.flush()


def _of_policy(told: Reloaded) -> str | None:
    """What became of the policy; "" if it was refused, which the log tells."""
    if told.error is not None:
        return ""
    return None if told.digest == told.before else f"reloaded: policy = {told.digest[:12]} (was {told.before[:12]})"


@click.command("wait-ready")
@address_option
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="How long to wait.",
)
def wait_ready(address: str, timeout: float) -> int:
    """Wait until a node answers. Exit code: 0 it does, 124 it did not in time."""
    from capsule.client.credentials import check_credentials
    from capsule.client.remote.node import RemoteNode
    from capsule.runtime import check_address

    async def main() -> int:
        async with asyncio.timeout(timeout):
            while True:
                node = RemoteNode(check_address(address), check_credentials(address, None, None))
                try:
                    await node.info()
                except CapsuleError as error:
                    lost = error.code == "connection_lost"  # it is only asked how it is: to ask again does no harm
                    if error.code == "access_denied" or not (error.retryable or lost):
                        raise
                else:
                    return exits.Exit.OK
                finally:
                    await node.close()
                await asyncio.sleep(PAUSE)  # nobody announces a socket that is not there yet

    try:
        return asyncio.run(main())
    except TimeoutError:
        click.echo(f"capsule wait-ready: no node answered at {address} within {timeout:g} s", err=True)
        return exits.Exit.TIMEOUT
    except CapsuleError as error:
        click.echo(f"capsule wait-ready: {error}", err=True)
        return exits.of_error(error)


ALL_ADDRESSES = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - how ZeroMQ tells that it listens at all of them
PAUSE = 0.05
"""Seconds between two attempts."""
