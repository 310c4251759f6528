"""Who comes over the network needs a key that the node knows."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError, AsyncClient, Client, NodeError
from capsule.keys import CLIENT, TOKEN, encode, new_secret
from tests.acceptance.auth.support import CAPSULE, LONG, Guarded

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def refusal(client: AsyncClient) -> NodeError:
    async with asyncio.timeout(LONG), client:
        with pytest.raises(NodeError) as caught:
            await client.info()
    assert caught.value.code == "access_denied"
    return caught.value


async def test_a_key_lets_its_client_in(node: Guarded) -> None:
    async with node.client(node.new("ada")) as client, client.session() as session:
        assert (await session.run("print('hi'); 6 * 7")).text == "42"


def test_the_synchronous_client_takes_a_file_or_the_variable(
    node: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    assert "secret" not in node.keys("new", "file", "--out", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with Client(node.tcp, key=file) as client, client.session() as session:
        assert session.run("1 + 1").text == "2"
    monkeypatch.setenv("CAPSULE_KEY", str(file))
    with Client(node.tcp) as client:
        assert client.info().sessions == 0
    monkeypatch.setenv("CAPSULE_KEY", file.read_text(encoding="ascii"))
    with Client(node.tcp) as client:
        assert client.info().sessions == 0


async def test_much_data_arrives_whole_in_both_directions(node: Guarded) -> None:
    async with node.client(node.new("bulk")) as client, client.session(files={"data": b"x" * 10_000_000}) as session:
        assert (await session.run("len(open('data').read())")).text == "10000000"
        assert len((await session.run("'x' * 5_000_000")).text) == 5_000_002
        result = await session.run("for n in range(100_000): print(n)")
        assert result.stdout == "".join(f"{n}\n" for n in range(100_000))


async def test_without_a_key_nobody_comes_in(node: Guarded) -> None:
    error = await refusal(node.client(None))
    assert "wants a key" in error.message
    assert "capsule keys new" in error.hint


async def test_a_key_that_the_node_does_not_know_is_refused(node: Guarded) -> None:
    known = node.new("known")
    stranger = encode(CLIENT, new_secret()) + "." + known.partition(".")[2]
    assert "does not accept the key" in (await refusal(node.client(stranger))).message
    assert any("code=access_denied" in line for line in node.refusals())


async def test_a_wrong_server_key_is_told_from_a_wrong_key(node: Guarded) -> None:
    key = node.new("misled").partition(".")[0]
    wrong = encode("cs_", new_secret())
    assert "server key" in (await refusal(AsyncClient(node.tcp, key=key, server_key=wrong))).message
    right = node.keys("server")["server_key"]
    async with AsyncClient(node.tcp, key=key, server_key=right) as client:
        await client.info()


async def test_a_refusal_that_comes_before_the_greeting_was_sent_is_told_too(node: Guarded) -> None:
    """ZeroMQ then takes no message any more, which was an error of its own: about one in fifty."""
    server = node.keys("server")["server_key"]
    for _ in range(150):
        await refusal(node.client(None))
        await refusal(AsyncClient(node.tcp, key=encode(CLIENT, new_secret()), server_key=server))


async def test_revoking_a_key_ends_its_connections_within_a_second(node: Guarded) -> None:
    async with node.client(node.new("bob")) as client, node.client(node.new("carol")) as other:
        session = await client.session()
        running = asyncio.ensure_future(session.run("import time; time.sleep(60)"))
        assert (await other.info()).sessions == 0
        process = await asyncio.create_subprocess_exec(
            str(CAPSULE), "keys", "revoke", "bob", env=node.environment, stdout=subprocess.PIPE
        )
        await process.wait()
        with pytest.raises(NodeError, match="revoked") as caught:
            async with asyncio.timeout(LONG / 4):  # a second, where nothing else runs
                await running
        assert caught.value.code == "access_denied"
        with pytest.raises(NodeError):
            await client.info()
        assert (await other.info()).sessions == 0  # nobody else notices
    assert any("principal=bob" in line and "code=access_denied" in line for line in node.refusals())


async def test_a_revoked_key_is_refused(node: Guarded) -> None:
    key = node.new("dora")
    async with node.client(key) as client:
        await client.info()
    node.keys("revoke", "dora")
    await refusal(node.client(key))


async def test_a_key_ends_at_its_time(node: Guarded) -> None:
    key = node.new("brief", "--expires", "2s")
    async with node.client(key) as client, asyncio.timeout(LONG):
        session = await client.session()
        with pytest.raises(NodeError, match="expired"):
            await session.run("import time; time.sleep(60)")
    await refusal(node.client(key))


async def test_a_revoked_connection_is_closed_for_one_that_does_not_hang_up(node: Guarded) -> None:
    """The system's connection ends, whatever its client does."""
    import zmq

    from capsule.client.remote.tcp import _encrypt
    from capsule.keys import read
    from capsule_protocol.connection import Connection

    key = node.new("stubborn")
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.RECONNECT_IVL, 10**6)
        _encrypt(socket, read(key))
        monitor = socket.get_monitor_socket(int(zmq.EVENT_DISCONNECTED))
        socket.connect(node.tcp)
        connection = Connection("client", "client")
        socket.send_multipart(connection.send(connection.hello()))
        assert socket.poll(int(LONG * 1000))
        node.keys("revoke", "stubborn")
        assert monitor.poll(int(LONG * 1000)), "the node did not end the connection"
        monitor.close(0)
    finally:
        context.destroy(linger=0)


def test_the_store_holds_no_secret_and_belongs_to_its_user_alone(node: Guarded) -> None:
    key = node.new("hidden")
    token = node.new("hidden-token", "--token")
    text = (node.state / "keys.json").read_text(encoding="ascii")
    for secret in (key, token):
        assert secret.partition(".")[0] not in text
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in node.state.iterdir()} == {0o600}
    rows = {row["name"]: row for row in node.keys("list")}
    assert rows["hidden"]["state"] == "valid"
    assert set(rows["hidden"]) == {
        "name", "principal", "role", "kind", "fingerprint", "created", "expires", "revoked", "state"
    }  # fmt: skip


# Tokens


async def test_a_token_lets_a_client_in_over_an_encrypted_link_and_over_ipc(node: Guarded) -> None:
    token = node.new("courier", "--token")
    async with node.client(token) as client:
        session = await client.session(name="box")
        await session.run("x = 1")
        await session.detach()
    async with AsyncClient(node.ipc, key=token) as client:
        session = await client.attach("box")
        assert (await session.run("x")).text == "1"
        await session.close()
    async with AsyncClient(node.ipc, key=encode(TOKEN, new_secret())) as client:
        with pytest.raises(NodeError, match="token"):
            await client.info()


async def test_while_there_are_tokens_a_stranger_without_one_is_refused(node: Guarded) -> None:
    token = node.new("reason", "--token")
    await refusal(node.client(encode(CLIENT, new_secret()) + "." + token.partition(".")[2]))
    await refusal(node.client(encode(TOKEN, new_secret()) + "." + token.partition(".")[2]))


async def test_a_token_ends_at_its_time_and_when_it_is_revoked(node: Guarded) -> None:
    brief = node.new("brief-token", "--token", "--expires", "2s")
    async with node.client(brief) as client, asyncio.timeout(LONG):
        session = await client.session()
        with pytest.raises(NodeError, match="expired"):
            await session.run("import time; time.sleep(60)")
    await refusal(node.client(brief))
    token = node.new("gone-token", "--token")
    node.keys("revoke", "gone-token")
    await refusal(node.client(token))


# Without encryption


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://[::]:0", "tcp://eth0:0"])
def test_an_insecure_listener_that_others_could_reach_is_refused(folder: Path, address: str) -> None:
    file = folder / "capsule.toml"
    file.write_text(f'[serve]\nlisten = ["{address}"]\ninsecure = true\n', encoding="utf-8")
    command = [str(CAPSULE), "serve", "--directory", str(folder / "node"), "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == 3
    assert "without encryption" in done.stderr
    assert "address_refused" in done.stderr


async def test_an_insecure_listener_of_this_machine_takes_clients_but_no_token(folder: Path) -> None:
    with Guarded(folder, arguments=["--insecure"]) as node:
        async with AsyncClient(node.tcp) as client, client.session() as session:
            assert (await session.run("1 + 1")).text == "2"
        with pytest.raises(ArgumentError, match="server_key"):
            AsyncClient(node.tcp, key=node.new("t", "--token").partition(".")[0])
        await refusal(node.client(node.new("sealed")))  # an encrypted client is not talked out of it


# Commands


def test_commands_take_the_key_from_the_variable(node: Guarded, tmp_path: Path) -> None:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(CAPSULE), *arguments],
            env=node.environment | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )

    key = node.new("commands")
    assert run("wait-ready", "--address", node.tcp, CAPSULE_KEY=key).returncode == 0
    done = run("wait-ready", "--address", node.tcp)
    assert done.returncode == 3  # at once: waiting would not help
    assert "wants a key" in done.stderr
    done = run("sessions", "--json", "--address", node.tcp, CAPSULE_KEY=key)
    assert json.loads(done.stdout) == {"sessions": []}
    assert run("config", "show", CAPSULE_KEY=key).returncode == 0  # it is no option of a node


@pytest.mark.parametrize(
    "arguments",
    [
        ("new", "a b"),
        ("new", "x", "--role", "king"),
        ("new", "x", "--expires", "2001-01-01"),
        ("new", "x", "--expires", "soon"),
        ("new", "x", "--out", "/none/there/x"),
        ("revoke", "nobody"),
    ],
)
def test_wrong_usage_changes_nothing(node: Guarded, arguments: tuple[str, ...]) -> None:
    before = node.keys("list")
    done = subprocess.run(
        [str(CAPSULE), "keys", *arguments],
        env=node.environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert node.keys("list") == before


# What a client may not ask for


def test_arguments_are_checked_and_no_error_repeats_a_secret(tmp_path: Path) -> None:
    secret = encode(CLIENT, new_secret())
    for key in (secret, secret[:-1], "", str(tmp_path / "none"), "ck_"):
        with pytest.raises(ArgumentError) as caught:
            Client("tcp://127.0.0.1:9", key=key)
        assert secret[3:20] not in str(caught.value)
    for address in ("ipc:///tmp/none.sock", None):
        with pytest.raises(ArgumentError):
            Client(address, key=secret)


async def test_an_address_where_nobody_listens_is_unreachable_and_no_refusal() -> None:
    async with AsyncClient("tcp://127.0.0.1:1", key=encode(CLIENT, new_secret(), new_secret())) as client:
        with pytest.raises(NodeError) as caught:
            await client.info()
    assert caught.value.code == "node_unreachable"
