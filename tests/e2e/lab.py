"""A real JupyterLab on loopback, and a page of a real browser that shows a notebook in it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

CAPSULE = Path(sys.executable).with_name("capsule")
PATIENCE = 90.0
"""Seconds until something must have come; the machine may be busy."""
_ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+/)lab\?token=(\w+)")
_OPTIONS = ("--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0")
_QUIET = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'


class Lab:
    """A JupyterLab that runs: what it has said, its address with a final slash, its token, and the folder it shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.address = ""
        self.token = ""
        self.listens = Event()

    def listen(self, process: subprocess.Popen[str]) -> None:
        """Read what it says until it has ended."""
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            found = _ADDRESS.search(line)
            if found is not None:
                self.address, self.token = found.groups()
                self.listens.set()
        self.listens.set()

    def write(self, name: str, *cells: str, kernel: str = "python3") -> None:
        """Put a notebook into the folder."""
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        made = new_notebook(cells=[new_code_cell(source) for source in cells], metadata={"kernelspec": spec})
        nbformat.write(made, self.folder / name)


@contextmanager
def lab(folder: Path, *arguments: str) -> Iterator[Lab]:
    """`capsule jupyter`, from when it says where it is until it has ended."""
    command: list[str | Path] = [CAPSULE, "jupyter", *arguments, "--", *_OPTIONS, f"--ServerApp.root_dir={folder}"]
    made = Lab(folder)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        listener = Thread(target=made.listen, args=[process])
        listener.start()
        try:
            assert made.listens.wait(PATIENCE), made.said
            assert made.address, "".join(made.said)
            _meet(made.address)
            yield made
        finally:
            process.terminate()
            process.wait(PATIENCE)
            listener.join()


def _meet(address: str) -> None:
    """It says where it is a moment before it is there."""
    where = urlsplit(address)
    assert where.hostname is not None
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((where.hostname, where.port or 80)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "it does not listen"


def be_quiet(config: Path) -> None:
    """Have no JupyterLab that is configured there ask its user for anything."""
    folder = config / "lab/user-settings/@jupyterlab/apputils-extension"
    folder.mkdir(parents=True)
    (folder / "notification.jupyterlab-settings").write_text(_QUIET)


class Notebook:
    """A notebook in a page, as a user sees it."""

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self.page = page
        page.goto(f"{lab.address}lab/tree/{name}?token={lab.token}&reset")
        expect(self.cell(0)).to_be_visible()

    def cell(self, number: int) -> Locator:
        """One of its cells, from 0."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)

    def output(self, number: int) -> Locator:
        """All that a cell shows."""
        return self.cell(number).locator(".jp-OutputArea").first

    def expect_state(self, state: str) -> None:
        """Wait until the status bar says so of the kernel: `Idle`, `Busy`."""
        expect(self.page.locator("#jp-main-statusbar")).to_contain_text(f"| {state}")

    def expect_count(self, number: int, count: int | str) -> None:
        """Wait until a cell has its number; `*` while it runs or waits."""
        expect(self.cell(number).locator(".jp-InputPrompt")).to_contain_text(f"[{count}]")

    def run(self, *numbers: int) -> None:
        """Run cells, as by Ctrl+Enter in each, without a wait for any."""
        for number in numbers:
            self.cell(number).locator(".cm-content").click()
            self.page.keyboard.press("Control+Enter")

    def press(self, button: str) -> None:
        """A button of the toolbar: `interrupt`, `restart`."""
        self.page.locator(f'.jp-NotebookPanel-toolbar [data-jp-item-name="{button}"] jp-button').click()

    def restart(self) -> None:
        """Restart the kernel, and say that it is meant."""
        self.press("restart")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
