"""What the provider says of a mount in a root, in a mount namespace of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from capsule import beneath
from capsule.providers.files import FilesProvider
from tests.acceptance.providers.calls import Caller
from tests.acceptance.providers.files.asked import outcome


def mount(root: Path, outside: Path, what: str) -> tuple[str, str]:
    """Mount it; the path of it, and of a file of it."""
    point = root / "point"
    if what == "file":
        point.touch()
        subprocess.run(["mount", "--bind", outside / "file", point], check=True)
        return "data/point", "data/point"
    point.mkdir()
    if what == "proc":
        subprocess.run(["mount", "-t", "proc", "proc", point], check=True)
        return "data/point", "data/point/1/status"
    subprocess.run(["mount", "--bind", outside, point], check=True)
    return "data/point", "data/point/file"


async def main() -> None:
    first, second, walk, what = sys.argv[1:]
    root, outside = Path(first), Path(second)
    beneath._HAS_OPENAT2 = walk == "in one call"
    point, file = mount(root, outside, what)
    scope = {"path": root, "mode": "rw"}
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"data": scope}})
    asked = [("read", file), ("append", file), ("write", file), ("stat", file), ("stat", point)]
    if file != point:
        asked += [("list", point), ("glob", point), ("write", f"{point}/new"), ("mkdir", f"{point}/new/inner")]
        asked += [("remove", file), ("move from", file), ("move to", file)]
        found = (await files("glob", path="data", pattern="**")).value.paths
        assert point in found
        assert not [path for path in found if path.startswith(f"{point}/")]
    print({await outcome(files, operation, path) for operation, path in asked})
    wide = Caller(provider, {"roots": {"data": {**scope, "mounts": True}}})
    print(await outcome(wide, "read", file), (await wide("read", path=file)).data.decode())
    await provider.stop()


asyncio.run(main())
