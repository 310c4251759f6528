"""How kernels begin and end: the node that the first one starts, leases, and what is refused."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient

import capsule
from capsule.jupyter import kernelspecs, lease
from capsule.jupyter.door import MAX_LINE
from capsule_protocol.errors import ArgumentError
from tests.acceptance.jupyter import support
from tests.acceptance.jupyter.support import LONG, connected, drain, gone, managed, reply_to, run, text_of
from tests.acceptance.serve.support import Served

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST: dict[str, Any] = {"env": {}}
HOG = "sum(range(10**12))"
"""C code that holds the interpreter for hours."""


@pytest.fixture
def fresh() -> Iterator[support.Home]:
    """A user who has no node yet."""
    with support.home() as made:
        yield made


def ask(**request: Any) -> lease.Lease:
    return lease.open_kernel(sys.executable, {**REQUEST, **request})


def client_of(connection: dict[str, Any]) -> BlockingKernelClient:
    client = BlockingKernelClient()
    told: Any = connection | {"key": connection["key"].encode()}
    client.load_connection_info(told)
    client.start_channels()
    client.wait_for_ready(timeout=LONG)
    return client


def pids(client: BlockingKernelClient) -> list[psutil.Process]:
    """A worker, and a child of it."""
    _, told = run(client, "import os, subprocess; p = subprocess.Popen(['sleep', '1000']); print(os.getpid(), p.pid)")
    return [psutil.Process(int(pid)) for pid in text_of(told).split()]


# The node of a user


def test_kernels_that_are_first_at_the_same_time_start_one_node(fresh: support.Home) -> None:
    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda _: ask(), range(8)))
    assert len(fresh.nodes()) == 1
    assert len({one.pid for one in leases}) == 8
    for one in leases:
        one.close()


def test_a_node_without_kernels_ends_by_itself(fresh: support.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPSULE_KERNELS_IDLE", "0.2")
    kept = ask()
    (node,) = fresh.nodes()
    watching = os.pidfd_open(node)
    kept.close()
    assert select.select([watching], [], [], LONG)[0]
    os.close(watching)
    ask().close()  # another one takes its place


def test_kernels_come_and_go_while_their_nodes_do(fresh: support.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a node that ends at once, nearly each kernel comes when it is about to."""
    monkeypatch.setenv("CAPSULE_KERNELS_IDLE", "0.000001")
    for _ in range(5):
        ask().close()


@pytest.mark.parametrize(("said", "hint"), [("No module named capsule", "kernelspec"), ("the store is damaged", "")])
def test_a_node_that_does_not_start_is_told(fresh: support.Home, tmp_path: Path, said: str, hint: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {said} >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(lease.LeaseError, match=said) as caught:
        lease.open_kernel(str(python), REQUEST)
    assert caught.value.code == "node_unreachable"
    assert (hint in caught.value.hint) if hint else not caught.value.hint


def test_a_directory_that_others_can_enter_is_refused(fresh: support.Home) -> None:
    (fresh.runtime / "capsule").mkdir(mode=0o755)
    with pytest.raises(lease.LeaseError, match="chmod 700"):
        ask()


def test_a_runtime_directory_with_too_long_a_name_is_told(fresh: support.Home, monkeypatch: pytest.MonkeyPatch) -> None:
    place = fresh.root / ("a" * 100)
    place.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    with pytest.raises(lease.LeaseError, match=r"cannot be reached: .*too long"):
        ask()


def test_a_service_takes_kernels_too(fresh: support.Home, tmp_path: Path) -> None:
    with Served(fresh.root / "node", '[store]\ndurability = "none"\n') as served:
        given = lease.open_kernel(sys.executable, REQUEST, directory=str(served.directory))
        client = client_of(given.connection)
        assert text_of(run(client, "print(1)")[1]) == "1\n"
        client.stop_channels()
        assert fresh.nodes() == []
        given.close()
        assert served.stop() == 0


def test_a_service_whose_sessions_outlive_it_has_subshells(fresh: support.Home) -> None:
    with Served(fresh.root / "node", linger=5.0) as served:
        given = lease.open_kernel(sys.executable, REQUEST, directory=str(served.directory))
        client = client_of(given.connection)
        assert reply_to(client, client.kernel_info())["supported_features"] == ["debugger", "kernel subshells"]
        client.control_channel.send(client.session.msg("create_subshell_request"))
        made = client.get_control_msg(timeout=LONG)["content"]
        assert made["status"] == "ok"
        main = client.execute("import threading; go = threading.Event(); _ = go.wait()")
        aside = client.session.msg("execute_request", {"code": "print('aside'); go.set()"})
        aside["header"]["subshell_id"] = made["subshell_id"]
        client.shell_channel.send(aside)
        assert text_of(drain(client, aside["header"]["msg_id"])) == "aside\n"
        assert reply_to(client, main)["status"] == "ok"
        client.stop_channels()
        given.close()
        assert served.stop() == 0


def test_of_a_kernel_whose_service_is_killed_the_session_waits_for_others(fresh: support.Home) -> None:
    """Who starts the kernel again has its ports and a new session; what was computed can be fetched by id."""
    with Served(fresh.root / "node", linger=LONG) as first:
        given = lease.open_kernel(sys.executable, REQUEST, directory=str(first.directory))
        client = client_of(given.connection)
        _, told = run(client, "x = 6 * 7\n%capsule info")
        found = re.search(r'attach\("(.+?)"', text_of(told))
        assert found is not None
        first.kill()
        assert select.select([given], [], [], LONG)[0]
        assert given.poll() == 1
        given.close()
        first.process.wait(LONG)
    with Served(fresh.root / "node", linger=LONG) as second:
        again = lease.open_kernel(
            sys.executable, REQUEST | {"connection": given.connection}, directory=str(second.directory)
        )
        assert reply_to(client, client.execute("x"))["ename"] == "NameError"
        with capsule.Client(second.address) as other, other.attach(found[1]) as session:
            assert (session.run("x").text, session.epoch) == ("42", 1)
        client.stop_channels()
        again.close()
        assert second.stop() == 0


def test_a_node_that_is_not_there_is_told(fresh: support.Home, tmp_path: Path) -> None:
    with pytest.raises(lease.LeaseError, match="capsule serve") as caught:
        lease.open_kernel(sys.executable, REQUEST, directory=str(tmp_path))
    assert caught.value.code == "node_unreachable"


# Leases


@pytest.mark.parametrize("code", ["while True: pass", HOG], ids=["loop", "hog"])
def test_a_client_that_is_killed_leaves_no_process(home: support.Home, code: str) -> None:
    """Also while C code holds the interpreter."""
    program = (
        "import json, sys, time\nfrom capsule.jupyter import lease\n"
        "kept = lease.open_kernel(sys.executable, {'env': {}})\n"
        "print(json.dumps(kept.connection), flush=True)\ntime.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        client = client_of(json.loads(holder.stdout.readline()))
        processes = pids(client)
        client.execute(code)
        while client.get_iopub_msg(timeout=LONG)["msg_type"] != "execute_input":
            pass
        holder.kill()
        began = time.monotonic()
        assert gone(processes)
        assert time.monotonic() - began < LONG / 4
        client.stop_channels()


def test_a_stand_in_that_is_killed_takes_its_kernel_with_it(home: support.Home, tmp_path: Path) -> None:
    with stand_in(tmp_path) as (process, client):
        processes = pids(client)
        process.kill()
        assert gone(processes)


def test_a_stand_in_ends_with_its_kernel(home: support.Home, tmp_path: Path) -> None:
    with stand_in(tmp_path) as (process, client):
        client.shutdown()
        assert process.wait(LONG) == 0


def test_a_stand_in_ends_by_the_signal_that_ended_its_kernel(home: support.Home, tmp_path: Path) -> None:
    with stand_in(tmp_path) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == -signal.SIGTERM


def test_a_stand_in_ends_with_the_program_that_started_it(home: support.Home, tmp_path: Path) -> None:
    """Nobody else would end it."""
    prepared = stand_in(tmp_path)
    variables = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
    program = "import json, subprocess, sys; subprocess.run(json.loads(sys.argv[1]))"
    starting = [sys.executable, "-c", program, json.dumps(command(prepared.file))]
    with subprocess.Popen(starting, env=variables) as starter:
        client = client_of(prepared.connection)
        processes = [*pids(client), *psutil.Process(starter.pid).children()]
        assert len(processes) == 3
        starter.kill()
        assert gone(processes)
        client.stop_channels()


def test_a_stand_in_ends_with_the_program_that_jupyter_names(
    home: support.Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as starter:
        monkeypatch.setenv("JPY_PARENT_PID", str(starter.pid))
        with stand_in(tmp_path) as (process, client):
            processes = pids(client)
            starter.kill()
            assert process.wait(LONG) == 0
            assert gone(processes)


@pytest.mark.parametrize("content", [None, "{", "\0", "[]"])
def test_a_stand_in_tells_of_a_connection_file_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "file.json"
    if content is not None:
        file.write_text(content)
    told = subprocess.run(
        [sys.executable, lease.__file__, "-f", str(file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert told.stderr.startswith(f"capsule: the connection file {file} cannot be read: ")
    assert "Traceback" not in told.stderr


def test_a_stand_in_tells_of_a_working_directory_that_is_gone(home: support.Home, tmp_path: Path) -> None:
    file, place = tmp_path / "file.json", tmp_path / "place"
    file.write_text("{}")
    place.mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, sys.argv[1:])"
    starting = [sys.executable, "-c", program, *command(file)]
    told = subprocess.run(starting, cwd=place, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr.strip()) == (
        3,
        "capsule: the working directory cannot be used: No such file or directory",
    )


def test_a_stand_in_relays_an_interrupt(home: support.Home, tmp_path: Path) -> None:
    with stand_in(tmp_path) as (process, client):
        request = client.execute("import time; time.sleep(1000)")
        while client.get_iopub_msg(timeout=LONG)["msg_type"] != "execute_input":
            pass
        process.send_signal(signal.SIGINT)
        assert support.reply_to(client, request)["ename"] == "KeyboardInterrupt"
        assert process.poll() is None


def test_a_second_stand_in_for_one_connection_file_is_refused(home: support.Home, tmp_path: Path) -> None:
    with stand_in(tmp_path) as (_, client):
        second = subprocess.run(command(tmp_path / "file.json"), capture_output=True, text=True, check=False)
        assert second.returncode == 3
        assert re.search(r"\(address_in_use\)", second.stderr)
        assert run(client, "1")[0]["status"] == "ok"


def test_a_stand_in_loads_nothing_but_a_little_of_the_standard_library() -> None:
    """It should be there in about 10 ms."""
    begin = [sys.executable, "-S", "-P", "-X", "importtime", lease.__file__]
    told = subprocess.run(begin, capture_output=True, text=True, check=False).stderr
    names = set(re.findall(r"\| +([\w.]+)$", told, re.MULTILINE))
    assert {"json", "socket"} <= names
    heavy = {"typing", "asyncio", "subprocess", "pathlib", "logging", "zmq", "pydantic", "capsule", "contextlib"}
    assert not heavy & names


# What is refused


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"environment": "nowhere"}, "nowhere"),
        ({"cwd": "/nowhere"}, "/nowhere"),
        ({"cwd": 1}, "cwd"),
        ({"env": {"A": 1}}, "env"),
        ({"arguments": ["--HistoryManager.nothing=1"]}, "nothing"),
        ({"connection": {"ip": "0.0.0.0"}}, "loopback"),
        ({"connection": {"transport": "carrier pigeon"}}, "transport"),
        ({"connection": {"shell_port": 70_000}}, "shell_port"),
        ({"connection": {"key": ""}}, "key: must not be empty: without a key anybody could have code run"),
        ({"connection": {"transport": "ipc", "ip": ""}}, "ip: must be a path of 1 to 90 characters"),
    ],
)
def test_a_request_for_a_kernel_that_cannot_be_had(home: support.Home, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(lease.LeaseError, match=re.escape(message)) as caught:
        ask(**request_)
    assert "Value error" not in str(caught.value)


def test_a_port_that_is_taken_is_told(home: support.Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(lease.LeaseError, match="stdin") as caught:
            ask(connection={"stdin_port": taken.getsockname()[1]})
    assert caught.value.code == "address_in_use"


@pytest.mark.parametrize("line", [b"junk", b"[]", b"{}", b'{"op": "fly"}', b'{"op": "signal", "number": 0}', b"\xff"])
def test_a_line_that_is_no_request_is_answered(home: support.Home, line: bytes) -> None:
    kept = ask()
    path = next(home.runtime.glob(f"capsule/*/{lease.SOCKET}"))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(LONG)
        asking.connect(str(path))
        asking.sendall(line + b"\n")
        told = json.loads(asking.recv(65_536))
        assert (told["event"], told["code"]) == ("error", "invalid_argument")
        assert '"start", "signal" (with a "number" from 1 to 64) or "end"' in told["message"]
        asking.sendall(b'{"op": "start"}\n')  # the connection is as good as ever
        assert json.loads(asking.recv(65_536))["event"] == "started"
    kept.close()


def test_a_line_without_an_end_is_hung_up_on(home: support.Home) -> None:
    kept = ask()
    path = next(home.runtime.glob(f"capsule/*/{lease.SOCKET}"))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(LONG)
        asking.connect(str(path))
        padded = {"op": "signal", "number": 2, "padding": "x" * (MAX_LINE - 1000)}
        asking.sendall(json.dumps(padded).encode() + b"\n")
        assert json.loads(asking.recv(65_536)) == {"event": "signalled"}
        with suppress(BrokenPipeError, ConnectionResetError):  # it does not read to the end
            asking.sendall(b"x" * (MAX_LINE + 2**20))
            assert asking.recv(1) == b""
    kept.close()


def test_ipc_sockets_are_as_good(home: support.Home) -> None:
    kept = ask(connection={"transport": "ipc", "ip": str(home.root / "k")})
    client = client_of(kept.connection)
    assert text_of(run(client, "print(1)")[1]) == "1\n"
    client.stop_channels()
    kept.close()


# Kernelspecs


def test_a_kernelspec_is_listed_until_it_is_removed(home: support.Home) -> None:
    made = kernelspecs.install(user=True, name="mine", display_name="Mine")
    assert made in kernelspecs.installed()
    assert {path.name for path in Path(made.directory).iterdir()} == {
        "kernel.json",
        "logo-svg.svg",
        "logo-32x32.png",
        "logo-64x64.png",
    }
    kernelspecs.remove("mine")
    assert made not in kernelspecs.installed()
    assert not Path(made.directory).exists()


@pytest.mark.parametrize("name", ["", ".", "..", "-f", "a/b", "../b", "A", "ä", "a" * 101])
def test_what_is_no_name_for_a_kernel_replaces_nothing(home: support.Home, name: str) -> None:
    """`..` would be Jupyter's own directory."""
    before = sorted((home.root / "data").rglob("*"))
    with pytest.raises(ArgumentError, match="no name for a kernel"):
        kernelspecs.install(user=True, name=name)
    assert sorted((home.root / "data").rglob("*")) == before


def test_kernels_of_one_name_are_all_listed_and_those_that_nobody_finds_are_marked(
    home: support.Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("first", "second", "third"):
        made = tmp_path / folder / "kernels" / "twin"
        made.mkdir(parents=True)
        spec = json.loads(Path(kernelspecs.install(user=True).directory, "kernel.json").read_text())
        spec["display_name"] = folder
        if folder == "first":
            del spec["metadata"]["capsule"]  # somebody else's
        (made / "kernel.json").write_text(json.dumps(spec))
    broken = tmp_path / "first" / "kernels" / "broken"
    broken.mkdir()
    (broken / "kernel.json").write_text("{")
    paths = [str(tmp_path / "second"), str(tmp_path / "third")]
    monkeypatch.setenv("JUPYTER_PATH", os.pathsep.join(paths))

    def twins() -> list[tuple[str, bool]]:
        return [(one.display_name, one.hidden) for one in kernelspecs.installed() if one.name == "twin"]

    assert twins() == [("second", False), ("third", True)]
    capsule = Path(sys.executable).with_name("capsule")
    listed = subprocess.run([capsule, "kernels", "list"], capture_output=True, text=True, check=True).stdout
    (hidden,) = [line for line in listed.splitlines() if "hidden by another kernel" in line]
    assert "third" in hidden
    removed = subprocess.run([capsule, "kernels", "remove", "twin"], capture_output=True, text=True, check=True).stdout
    assert removed.splitlines()[1] == f"another one of this name is in {tmp_path / 'third' / 'kernels' / 'twin'}"
    assert twins() == [("third", False)]
    monkeypatch.setenv("JUPYTER_PATH", os.pathsep.join([str(tmp_path / "first"), *paths]))
    assert twins() == [("third", True)]


def test_a_kernel_is_installed_in_one_place(home: support.Home) -> None:
    capsule = str(Path(sys.executable).with_name("capsule"))
    command = [capsule, "kernels", "install", "--user", "--sys-prefix", "--name", "both"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--user and --sys-prefix are two places: choose one." in done.stderr
    assert not [one for one in kernelspecs.installed() if one.name == "both"]


def test_a_kernel_of_another_environment(home: support.Home) -> None:
    config = home.root / "capsule.toml"
    config.write_text('[environments.data]\nenv = { PLACE = "data" }\n')
    made = kernelspecs.install("data", user=True, config=str(config))
    assert (made.name, made.display_name) == ("capsule-data", "Python 3 (Capsule): data")
    with managed(made.name) as manager, connected(manager) as client:
        assert text_of(run(client, "import os; print(os.environ['PLACE'])")[1]) == "data\n"
    kernelspecs.remove(made.name)


def command(file: Path) -> list[str]:
    spec = next(one for one in kernelspecs.installed() if one.name == support.PROVISIONER)
    argv = json.loads(Path(spec.directory, "kernel.json").read_text())["argv"]
    return [str(file) if one == "{connection_file}" else one for one in argv]


class stand_in:
    """A kernel that somebody starts as a process of his own."""

    def __init__(self, place: Path) -> None:
        ports = [free_port() for _ in range(5)]
        names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        self.connection = {
            "ip": "127.0.0.1",
            "transport": "tcp",
            "key": "a key",
            **dict(zip(names, ports, strict=True)),
        }
        self.file = place / "file.json"
        self.file.write_text(json.dumps(self.connection))

    def __enter__(self) -> tuple[subprocess.Popen[bytes], BlockingKernelClient]:
        self.process = subprocess.Popen(command(self.file))
        try:
            self._wait_for_a_beat()
            self.client = client_of(self.connection)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self.process, self.client

    def _wait_for_a_beat(self) -> None:
        """A client of Jupyter's takes a kernel for dead that is not there within a second."""
        with zmq.Context() as context, context.socket(zmq.REQ) as heart:
            heart.linger = 0
            heart.connect(f"tcp://127.0.0.1:{self.connection['hb_port']}")
            heart.send(b"ping")
            assert heart.poll(int(LONG * 1000))

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as asking:
        asking.bind(("127.0.0.1", 0))
        port: int = asking.getsockname()[1]
        return port
