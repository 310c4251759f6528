"""A public address that is this machine's own, in a network of its own that has no way out."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from capsule_protocol.errors import CapabilityDenied
from tests.acceptance.providers.http.support import serve, web

ROOT = Path(__file__).parents[4]
OWN = "8.8.8.8"


ISOLATED = ["unshare", "--net", "--map-root-user"]


def can_isolate() -> bool:
    found = shutil.which("ip") and shutil.which("unshare")
    return bool(found) and subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_isolate(), reason="needs iproute2, util-linux and network namespaces")
def test_the_machines_own_public_address_is_reached_only_where_a_grant_names_it() -> None:
    inside = f"ip link set lo up && ip addr add {OWN}/32 dev lo && exec {sys.executable} -m {__name__}"
    done = subprocess.run(
        [*ISOLATED, "sh", "-c", inside],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "protocol"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "denied: this machine\nnamed: 200\n", done.stderr


async def main() -> None:
    async with serve(address=OWN) as server:
        async with web(server.target("own.example.org"), names={"own.example.org": [OWN]}) as fetch:
            try:
                await fetch("fetch", url=server.url(host="own.example.org"))
            except CapabilityDenied as error:
                print("denied:", error.message.rpartition(": ")[2])
        assert server.connections == 0
        async with web(server.target(OWN), private=[f"{OWN}/32"]) as fetch:
            print("named:", (await fetch("fetch", url=server.url(host=OWN))).value.status)


if __name__ == "__main__":
    asyncio.run(main())
