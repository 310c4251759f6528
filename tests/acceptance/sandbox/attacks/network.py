"""Attacks by sockets of every family: to the machine's ports, to other programs, to the node and neighbours."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from typing import Any

from tests.acceptance.sandbox.attacks.attack import EVERY_WAY, Collection
from tests.acceptance.sandbox.attacks.siege import Attacker
from tests.acceptance.sandbox.attacks.toolbox import Missing, Prey, any_of, done, each

collection = attack = Collection()

PATIENCE = 3.0
NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENODEV}


def ask(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> bytes:
    """What somebody who listens there says."""
    with socket.socket(family, kind) as there:
        there.settimeout(PATIENCE)
        there.connect(address)
        return there.recv(100)


@attack(ways=EVERY_WAY)
def connect_to_a_port_of_this_machine(prey: Prey) -> str | None:
    return prey.find(ask(socket.AF_INET, ("127.0.0.1", prey.tcp)))


@attack()
def connect_to_other_names_of_this_machine(prey: Prey) -> str | None:
    addresses = ["localhost", "0.0.0.0", "127.1.2.3", "0"]
    return each(addresses, lambda name: prey.find(ask(socket.AF_INET, (name, prey.tcp))))


@attack()
def connect_by_the_sixth_version(prey: Prey) -> str | None:
    return any_of(
        {
            "::1": lambda: prey.find(ask(socket.AF_INET6, ("::1", prey.tcp6))),
            "mapped": lambda: prey.find(ask(socket.AF_INET6, ("::ffff:127.0.0.1", prey.tcp))),
        }
    )


@attack()
def connect_without_waiting(prey: Prey) -> str | None:
    with socket.socket() as there:
        there.settimeout(0)
        code = there.connect_ex(("127.0.0.1", prey.tcp))
        if code not in {0, errno.EINPROGRESS}:
            raise OSError(code, "connect")
        there.settimeout(PATIENCE)
        return prey.find(there.recv(100))


@attack()
def connect_by_sending(prey: Prey) -> str | None:
    """TCP Fast Open needs no call of `connect`."""
    with socket.socket() as there:
        there.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", prey.tcp))
        return prey.find(there.recv(100))


@attack()
def connect_by_another_protocol(prey: Prey) -> str | None:
    """Multipath TCP is TCP to the server, and another protocol to who counts protocols."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as there:
        there.settimeout(PATIENCE)
        there.connect(("127.0.0.1", prey.tcp))
        return prey.find(there.recv(100))


@attack(ways=EVERY_WAY)
def send_a_datagram_to_a_port(prey: Prey) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.settimeout(PATIENCE)
        there.sendto(b"x", ("127.0.0.1", prey.udp))
        return prey.find(there.recv(100))


@attack()
def listen_for_others(prey: Prey) -> str | None:
    """Somebody outside the sandbox comes to the port: a process that the session's own code could not have started."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", prey.knock))
        door.listen()
        door.settimeout(PATIENCE)
        guest, _ = door.accept()
        with guest:
            return prey.find(guest.recv(100))


@attack(ways=EVERY_WAY)
def connect_to_an_abstract_socket(prey: Prey) -> str | None:
    return prey.find(ask(socket.AF_UNIX, f"\0{prey.abstract}"))


@attack()
def send_to_an_abstract_socket(prey: Prey) -> str | None:
    """Nothing is connected: the address comes with the message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        return f"sent {there.sendto(b'x', f'{chr(0)}{prey.abstract}-datagram')}"


@attack(ways=EVERY_WAY)
def connect_to_a_socket_with_a_path(prey: Prey) -> str | None:
    return prey.find(ask(socket.AF_UNIX, f"{prey.outside}/stream.sock"))


@attack(ways=EVERY_WAY)
def send_to_a_socket_with_a_path(prey: Prey) -> str | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        return f"sent {there.sendto(b'x', f'{prey.outside}/datagram.sock')}"


@attack()
def send_many_to_a_socket_with_a_path(prey: Prey) -> str | None:
    """sendmsg has an address too, and one half of a pair can be turned to another address."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = f"{prey.outside}/datagram.sock"
    with here, there:
        return any_of(
            {
                "sendmsg": lambda: here.sendmsg([b"x"], [], 0, path),
                "pair": lambda: here.sendto(b"x", path),
                "turned": lambda: done(here.connect, path),
            }
        )


@attack()
def reach_a_socket_by_another_path(prey: Prey) -> str | None:
    """A link in scratch, the directory as a descriptor: the check must be of what is there, not of its name."""
    os.symlink(f"{prey.outside}/stream.sock", "door")

    def by_descriptor() -> str | None:
        top = os.open(prey.outside, os.O_PATH | os.O_DIRECTORY)
        return prey.find(ask(socket.AF_UNIX, f"/proc/self/fd/{top}/stream.sock"))

    return any_of({"link": lambda: prey.find(ask(socket.AF_UNIX, "door")), "descriptor": by_descriptor})


@attack(ways=EVERY_WAY)
def connect_to_the_node(prey: Prey) -> str | None:
    """The clients' door: who is let in there may open sessions, and read the answers of others."""
    paths = [f"{prey.directory}/node.sock", f"{prey.directory}/kernels.sock"]
    return each(paths, connected)


def connected(path: str) -> str:
    """That there is somebody, if so."""
    with socket.socket(socket.AF_UNIX) as there:
        there.settimeout(PATIENCE)
        there.connect(path)
        return "connected"


@attack()
def connect_to_the_neighbours_box(prey: Prey) -> str | None:
    """The worker's two sockets, and the door at which a box waits for another node."""
    box = os.path.dirname(prey.neighbour["scratch"])

    def by(name: str, kind: int) -> str:
        with socket.socket(socket.AF_UNIX, kind) as there:
            there.settimeout(PATIENCE)
            there.connect(f"{box}/{name}")
            return "connected"

    return any_of(
        {
            "shell": lambda: by("shell.sock", socket.SOCK_STREAM),
            "control": lambda: by("control.sock", socket.SOCK_STREAM),
            "box": lambda: by("box.sock", socket.SOCK_SEQPACKET),
        }
    )


@attack()
def connect_to_its_own_box(prey: Prey) -> str | None:
    """To speak for a node to its own box or worker leads nowhere outside, but no session has business there."""
    box = os.path.dirname(os.getcwd())

    def door() -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as there:
            there.connect(f"{box}/box.sock")
            return "connected"

    return any_of({"door": door, "control": lambda: connected(f"{box}/control.sock")})


@attack(residual=("landlock",), risk="without namespaces there is one table, in /proc: names, and no way there")
def find_sockets_in_the_kernels_table(prey: Prey) -> str | None:
    """Who listens where; what is not of this siege is left alone."""
    place = os.path.dirname(prey.outside)
    with open("/proc/net/unix") as table:
        seen = {words[7] for line in table if len(words := line.split()) > 7}
    own = os.path.dirname(os.getcwd())
    names = [name for name in seen if (place in name or prey.abstract in name) and not name.startswith(own)]
    return " ".join(names)


def made(family: int, kind: int, protocol: int = 0) -> str:
    """That such a socket can be had."""
    try:
        with socket.socket(family, kind, protocol):
            return "made"
    except OSError as error:
        if error.errno in NO_SUCH_FAMILY:
            raise Missing(os.strerror(error.errno)) from None
        raise


@attack(control="root", ways=EVERY_WAY)
def make_a_raw_socket(prey: Prey) -> str | None:
    return made(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@attack(control="root")
def make_a_packet_socket(prey: Prey) -> str | None:
    return made(socket.AF_PACKET, socket.SOCK_RAW, 0)


@attack(ways=EVERY_WAY)
def make_a_netlink_socket(prey: Prey) -> str | None:
    return made(socket.AF_NETLINK, socket.SOCK_RAW, 0)


@attack(ways=EVERY_WAY)
def make_a_socket_to_the_hypervisor(prey: Prey) -> str | None:
    """No network namespace covers these."""
    return made(socket.AF_VSOCK, socket.SOCK_STREAM)


@attack()
def make_a_socket_of_the_kernels_cryptography(prey: Prey) -> str | None:
    return made(38, socket.SOCK_SEQPACKET)


@attack()
def make_sockets_of_rare_families(prey: Prey) -> str | None:
    """Each is code in the kernel that no session needs."""
    got, missing = {}, 0
    for family in range(2, 46):
        if family in {socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_VSOCK, 38, socket.AF_PACKET}:
            continue
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
            try:
                got[family] = made(family, kind)
            except Missing:
                missing += 1
            except OSError:
                pass
    if not got and missing > 100:
        raise Missing("none of them")
    return ", ".join(map(str, got)) or None


@attack()
def look_up_a_name(prey: Prey) -> str | None:
    """A question to a name server tells it something, whatever the answer; this one is the machine's own port."""
    question = struct.pack(">6H", 1, 256, 1, 0, 0, 0) + b"\7secrets\7example\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.settimeout(PATIENCE)
        there.connect(("127.0.0.1", prey.udp))
        there.send(question)
        return prey.find(there.recv(100))


async def nothing_came(attacker: Attacker) -> str | None:
    """Whether datagrams with the mark have come to the host's sockets."""
    marks = [data for data in attacker.siege.prey.received if data.startswith(b"mark")]
    attacker.siege.prey.received.clear()
    return f"{len(marks)} came" if marks and attacker.level != "none" else None


@attack(after=nothing_came)
def send_with_every_call_there_is(prey: Prey) -> str | None:
    """sendmmsg, and a message in pieces."""
    libc = ctypes.CDLL(None, use_errno=True)
    address = struct.pack("=H", socket.AF_UNIX) + f"{prey.outside}/datagram.sock".encode() + b"\0"
    text = ctypes.create_string_buffer(b"mark")
    place = ctypes.create_string_buffer(address)
    vector = ctypes.create_string_buffer(struct.pack("PL", ctypes.addressof(text), 4))
    header = struct.pack("PIxxxxPNPNi", ctypes.addressof(place), len(address), ctypes.addressof(vector), 1, 0, 0, 0)
    message = ctypes.create_string_buffer(header.ljust(64, b"\0"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        if libc.sendmmsg(there.fileno(), message, 1, 0) != 1:
            raise OSError(ctypes.get_errno(), "sendmmsg")
    time.sleep(0.05)
    return "sent"
