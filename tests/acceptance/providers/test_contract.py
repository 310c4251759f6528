"""The contract of providers, for each of ours, and for one that a package brings."""

from __future__ import annotations

import http.server
import importlib
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from capsule.broker.apart.proxy import ApartProvider
from capsule.providers import ask, files, shell, system
from capsule.providers import http as web
from capsule.testing import Example, ProviderContract

PACKAGE = str(Path(__file__).parents[1] / "broker/package")


@contextmanager
def installed() -> Iterator[None]:
    """The package of another provider is found, for so long: tests of what is installed find nothing of it."""
    sys.path.append(PACKAGE)
    try:
        yield
    finally:
        sys.path.remove(PACKAGE)


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from capsule.broker.sdk import Provider


class TestAcme(ProviderContract):
    examples: ClassVar[Mapping[str, Example]] = {
        "greet": Example({"name": "you"}),
        "join": Example({"words": ["a", "b"]}),
        "mark": Example({"text": "one", "password": "hunter2", "logins": [{"user": "a", "password": "hunter3"}]}),
        "give": Example({"size": 100_000}),
        "count": Example(body=b"abc"),
        "echo": Example(body=b"abc"),
        "wait": Example(),
        "trouble": Example({"kind": "none"}),
    }
    endless: ClassVar[frozenset[str]] = frozenset({"wait"})
    outside: ClassVar[Mapping[str, Example]] = {"greet": Example({"name": "me"})}

    def provider(self) -> Provider:
        with installed():
            made: Provider = importlib.import_module("acme_caps").provider()
        return made

    def scope(self, folder: Path) -> dict[str, Any]:
        return {"marks": str(folder / "marks"), "names": ["you"]}


class TestFar(TestAcme):
    """The same, from a process of its own."""

    def provider(self) -> Provider:
        with installed():
            return ApartProvider("acme_caps.far:provider")


class TestFiles(ProviderContract):
    examples: ClassVar[Mapping[str, Example]] = {
        "read": Example({"path": "data/a.txt"}),
        "write": Example({"path": "data/b.txt"}, b"abc"),
        "append": Example({"path": "data/a.txt"}, b"abc"),
        "list": Example({"path": "data"}),
        "stat": Example({"path": "data/a.txt"}),
        "mkdir": Example({"path": "data/new", "exist_ok": True}),
        "move": Example({"source": "data/a.txt", "target": "data/c.txt", "overwrite": True}),
        "remove": Example({"path": "data/a.txt"}),
        "glob": Example({"path": "data", "pattern": "*"}),
        "watch": Example({"path": "data"}),
    }
    endless: ClassVar[frozenset[str]] = frozenset({"watch"})
    outside: ClassVar[Mapping[str, Example]] = {"read": Example({"path": "other/a.txt"})}

    def provider(self) -> Provider:
        return files.provider()

    def scope(self, folder: Path) -> dict[str, Any]:
        return {"roots": {"data": {"path": str(folder), "mode": "rw"}}}

    def prepare(self, folder: Path) -> None:
        (folder / "a.txt").write_bytes(bytes(5000))


class TestSystem(ProviderContract):
    examples: ClassVar[Mapping[str, Example]] = {
        "time": Example(),
        "env": Example(),
        "usage": Example(),
        "session": Example(),
    }

    def provider(self) -> Provider:
        return system.provider()


class TestShell(ProviderContract):
    examples: ClassVar[Mapping[str, Example]] = {"run": Example({"args": ["cat"]}, b"abc")}
    outside: ClassVar[Mapping[str, Example]] = {"run": Example({"args": ["ls"]})}

    def provider(self) -> Provider:
        return shell.provider()

    def scope(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        return {"programs": {"cat": {"path": "/bin/cat"}}}


class TestAsk(ProviderContract):
    examples: ClassVar[Mapping[str, Example]] = {"question": Example({"prompt": "Name? "})}

    def provider(self) -> Provider:
        return ask.provider()


class Quiet(http.server.BaseHTTPRequestHandler):
    """Answers everything with a little text."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(bytes(5000))

    def log_message(self, format: str, *args: object) -> None: ...


class TestHttp(ProviderContract):
    server: ClassVar[http.server.ThreadingHTTPServer]
    examples: ClassVar[Mapping[str, Example]] = {}
    outside: ClassVar[Mapping[str, Example]] = {"fetch": Example({"url": "http://localhost:1/"})}

    @classmethod
    def setup_class(cls) -> None:
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{cls.server.server_port}/"
        cls.examples = {"fetch": Example({"url": url}), "stream": Example({"url": url})}

    @classmethod
    def teardown_class(cls) -> None:
        cls.server.shutdown()
        cls.server.server_close()

    def provider(self) -> Provider:
        return web.provider()

    def scope(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        allow = {"scheme": "http", "host": "127.0.0.1", "port": self.server.server_port}
        return {"allow": [allow], "private": ["127.0.0.0/8"]}
