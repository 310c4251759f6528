"""A real `capsule serve` with a key store of its own, and the real command `capsule keys`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from capsule import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Sequence

CAPSULE = Path(sys.executable).with_name("capsule")
LONG = 60.0


class Guarded:
    """A node that listens at `ipc` and, with a key, at `tcp`. `folder` is its own, with a short name."""

    def __init__(self, folder: Path, config: str = "", arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self.state = folder / "state" / "capsule" / "keys"
        self.log = folder / "log"
        self.environment = {"CAPSULE_SERVE__LINGER": "0", **os.environ, "XDG_STATE_HOME": str(folder / "state")}
        self.environment.pop("CAPSULE_KEY", None)
        self.file = folder / "capsule.toml"
        self.write(config)
        command = [str(CAPSULE), "serve", "--directory", str(folder / "node"), "--config", str(self.file), *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=self.environment)
        assert self.process.stdout is not None
        self.ipc = self.process.stdout.readline().decode().split()[-1]
        self.tcp = self.process.stdout.readline().decode().split()[-1]

    def write(self, config: str) -> None:
        """Change the configuration; it is read again on SIGHUP."""
        listen = '[serve]\nlisten = ["tcp://127.0.0.1:0"]\ndrain_timeout = 1.0\n'
        self.file.write_text(listen + config, encoding="utf-8")

    def next_line(self, beginning: str) -> str:
        """The next line that it prints which begins so."""
        assert self.process.stdout is not None
        return next(line for line in map(bytes.decode, self.process.stdout) if line.startswith(beginning))

    def keys(self, *arguments: str) -> Any:
        """What `capsule keys … --json` answers."""
        command = [str(CAPSULE), "keys", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=LONG, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def new(self, name: str, *options: str) -> str:
        """A new key or token."""
        return str(self.keys("new", name, *options)["secret"])

    def client(self, key: str | None) -> AsyncClient:
        """A client over the network."""
        return AsyncClient(self.tcp, key=key)

    def refusals(self) -> list[str]:
        """What the node has said about those that it refused."""
        return [line for line in self.log.read_text(encoding="utf-8").splitlines() if line.startswith("refused: ")]

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(LONG)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
