"""How kernels begin and end: their place, restarts, deaths, and nodes that end before them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

import psutil
import pytest
from jupyter_client.manager import KernelManager
from jupyter_core.utils import run_sync

from capsule.jupyter.translate import UNRESPONSIVE
from tests.acceptance.behaviour.support import in_c_until
from tests.acceptance.jupyter import support
from tests.acceptance.jupyter.support import (
    LONG,
    connected,
    drain,
    gone,
    managed,
    reply_to,
    run,
    text_of,
    wait_until_taken,
)

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

pytestmark = pytest.mark.usefixtures("home")


def wait_for_end(manager: KernelManager) -> bool:
    """As managers do: they look again and again."""
    deadline = time.monotonic() + LONG
    while manager.is_alive() and time.monotonic() < deadline:
        pass
    return not manager.is_alive()


def ports_of(manager: KernelManager) -> dict[str, object]:
    return {name: port for name, port in manager.get_connection_info().items() if name.endswith("_port")}


def ports_in(file: str) -> dict[str, int]:
    return {name: port for name, port in json.loads(Path(file).read_text()).items() if name.endswith("_port")}


# Its place


def test_a_kernel_has_the_directory_and_variables_that_it_is_given(home: support.Home, tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    for place in (elsewhere, here):
        place.mkdir()
        (place / f"{place.name}.py").write_text("word = 'found'")
    env = {**os.environ, "GIVEN": "yes", "PYTHONPATH": str(elsewhere)}
    for name in support.ROUTES:
        with managed(name, cwd=str(here), env=env) as manager, connected(manager) as client:
            seen = "os.getcwd(), os.environ['GIVEN'], elsewhere.word, here.word, 'MPLBACKEND' in os.environ"
            _, told = run(client, f"import os, elsewhere, here, json\nprint(json.dumps([{seen}]))")
            assert json.loads(text_of(told)) == [str(here), "yes", "found", "found", True]


# Restart and end


@pytest.mark.parametrize("name", support.ROUTES)
@pytest.mark.parametrize("now", [False, True])
def test_a_restart_loses_no_request(home: support.Home, name: str, now: bool) -> None:
    with managed(name) as manager, connected(manager) as client:
        ports = manager.shell_port, manager.iopub_port, manager.session.key
        for _ in range(5):
            assert run(client, "x = 1")[0]["status"] == "ok"
            manager.restart_kernel(now=now)
            request = client.execute("'x' in globals()")
            assert reply_to(client, request)["status"] == "ok"
            (result,) = [one for one in drain(client, request) if one["msg_type"] == "execute_result"]
            assert result["content"]["data"]["text/plain"] == "False"
            assert (manager.shell_port, manager.iopub_port, manager.session.key) == ports


SPIN = "print('running', flush=True)\nwhile True: pass"
STUBBORN = (
    "print('running', flush=True)\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass"
)


def answers(client: BlockingKernelClient, requests: set[str]) -> dict[str, str]:
    """The status of the reply to each, when each is over."""
    replies: dict[str, str] = {}
    while not requests <= replies.keys():
        message = client.get_shell_msg(timeout=LONG)
        replies[message["parent_header"]["msg_id"]] = message["content"]["status"]
    idle: set[str] = set()
    while not requests <= idle:
        message = client.get_iopub_msg(timeout=LONG)
        if message["content"].get("execution_state") == "idle":
            idle.add(message["parent_header"].get("msg_id", ""))
    return replies


@pytest.mark.parametrize("name", support.ROUTES)
@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize("code", [SPIN, STUBBORN])
def test_what_runs_at_a_restart_and_what_waits_is_answered(home: support.Home, name: str, now: bool, code: str) -> None:
    with managed(name) as manager, connected(manager) as client:
        running = client.execute(code)
        while client.get_iopub_msg(timeout=LONG)["msg_type"] != "stream":
            pass
        waiting = client.execute("print('never')")
        wait_until_taken(client)  # or it may come behind the interrupt, and run
        manager.restart_kernel(now=now)
        again = client.execute("print('again')")
        replies = answers(client, {running, waiting, again})
        assert (replies[running], replies[again]) == ("error", "ok")
        assert replies[waiting] in {"aborted", "error"}


@pytest.mark.parametrize("name", support.ROUTES)
def test_what_killed_a_kernel_is_answered_when_that_runs_again(home: support.Home, name: str) -> None:
    with managed(name) as manager, connected(manager) as client:
        deadly = client.execute("import os; os._exit(7)")
        while client.get_iopub_msg(timeout=LONG)["msg_type"] != "error":
            pass
        with pytest.raises(Empty):  # for that is how clients see that a kernel is dead
            client.get_shell_msg(timeout=0.3)
        manager.restart_kernel(now=True)
        assert answers(client, {deadly, client.execute("1")})[deadly] == "error"


@pytest.mark.parametrize("name", support.ROUTES)
def test_a_kernel_that_dies_is_noticed_and_can_be_started_again(home: support.Home, name: str) -> None:
    with managed(name) as manager, connected(manager) as client:
        client.execute("import os; os._exit(7)")
        while (message := client.get_iopub_msg(timeout=LONG))["msg_type"] != "error":
            pass
        assert "7" in message["content"]["evalue"]
        assert wait_for_end(manager)
        manager.restart_kernel(now=True)
        assert run(client, "1")[0]["status"] == "ok"


def test_an_interrupt_that_cannot_come_through_yet_is_told_and_the_variables_stay(
    home: support.Home, tmp_path: Path
) -> None:
    with managed(support.PROVISIONER) as manager, connected(manager) as client:
        run(client, "kept = 1; ended = False")
        client.execute(in_c_until(tmp_path / "end"))
        while client.get_iopub_msg(timeout=LONG)["msg_type"] != "stream":
            pass
        manager.interrupt_kernel()
        while (message := client.get_iopub_msg(timeout=LONG))["content"].get("name") != "stderr":
            pass
        assert message["content"]["text"] == UNRESPONSIVE
        (tmp_path / "end").touch()
        while (message := client.get_iopub_msg(timeout=LONG))["msg_type"] != "error":
            pass
        assert message["content"]["ename"] == "KeyboardInterrupt"
        assert text_of(run(client, "print(kept, ended)")[1]) == "1 False\n"


def test_what_configures_ipykernels_application_keeps_no_kernel_from_starting(home: support.Home) -> None:
    arguments = [
        "--InteractiveShellApp.exec_lines=['1']",
        "--ProfileDir.location=/nowhere",
        "--Application.log_level=10",
    ]
    with managed(support.PLAIN, extra_arguments=arguments) as manager, connected(manager) as client:
        assert run(client, "1")[0]["status"] == "ok"


@pytest.mark.parametrize("name", [support.PROVISIONER, support.PLAIN])
def test_what_a_restarter_starts_again_listens_where_its_clients_are(home: support.Home, name: str) -> None:
    """One that sees a kernel die gives its ports up, in case the kernel could not have them."""
    with managed(name) as manager, connected(manager) as client:
        before = ports_of(manager)
        client.execute("import os; os.kill(os.getpid(), 9)")
        assert wait_for_end(manager)
        manager.restart_kernel(now=True, newports=True)
        assert ports_of(manager) == before == ports_in(manager.connection_file)
        assert run(client, "1")[0]["status"] == "ok"


def test_sockets_of_files_are_where_whoever_starts_the_kernel_is(home: support.Home, tmp_path: Path) -> None:
    """By default jupyter_client names a path that begins nowhere, and the node is somewhere else."""
    with contextlib.chdir(tmp_path):
        manager = KernelManager(kernel_name=support.PROVISIONER, transport="ipc")
        manager.start_kernel(cwd=str(home.root))
        try:
            with connected(manager) as client:
                assert run(client, "1")[0]["status"] == "ok"
            assert {path.name for path in tmp_path.iterdir()} == {f"kernel-ipc-{number}" for number in range(1, 6)}
        finally:
            manager.shutdown_kernel(now=True)
    assert not list(tmp_path.iterdir())


def test_a_kernel_that_is_started_once_more_begins_anew(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager, connected(manager) as client:
        _, told = run(client, "import os; print(os.getpid())")
        manager.start_kernel()
        assert not psutil.pid_exists(int(text_of(told)))
        assert text_of(run(client, "print('os' in globals())")[1]) == "False\n"


@pytest.mark.parametrize("name", support.ROUTES)
def test_an_end_leaves_no_process(home: support.Home, name: str) -> None:
    with managed(name) as manager, connected(manager) as client:
        _, told = run(
            client, "import os, subprocess; p = subprocess.Popen(['sleep', '1000']); print(os.getpid(), p.pid)"
        )
        processes = [psutil.Process(int(pid)) for pid in text_of(told).split()]
        manager.shutdown_kernel()
        assert not manager.is_alive()
        _, alive = psutil.wait_procs(processes, timeout=LONG)
        assert not alive


def test_a_shutdown_is_answered_and_told(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager, connected(manager) as client:
        client.shutdown()
        assert client.get_control_msg(timeout=LONG)["content"] == {"status": "ok", "restart": False}
        while client.get_iopub_msg(timeout=LONG)["msg_type"] != "shutdown_reply":
            pass


def test_methods_of_a_provisioner_bear_a_kernel_that_is_gone(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager:
        manager.shutdown_kernel(now=True)
        provisioner = manager.provisioner
        assert provisioner is not None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            run_sync(provisioner.send_signal)(number)
        for method in (
            provisioner.kill,
            provisioner.terminate,
            provisioner.cleanup,
            provisioner.poll,
            provisioner.wait,
        ):
            run_sync(method)()
        assert not provisioner.has_process


# The node


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kernel_can_be_restarted_when_its_node_has_ended(number: signal.Signals) -> None:
    """As its manager does; with the same ports."""
    with support.home() as home, managed(support.PROVISIONER) as manager, connected(manager) as client:
        _, told = run(client, "import os; print(os.getpid())")
        worker = psutil.Process(int(text_of(told)))
        (node,) = home.nodes()
        os.kill(node, number)
        assert gone([worker])
        deadline = time.monotonic() + LONG
        while manager.is_alive():
            assert time.monotonic() < deadline
        port = manager.shell_port
        manager.restart_kernel(now=True)
        assert manager.shell_port == port
        assert reply_to(client, client.execute("1"))["status"] == "ok"
