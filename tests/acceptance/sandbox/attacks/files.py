"""Attacks on files: to read what is not the session's, to write outside its scratch, to get at either by a detour."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import stat
import struct

from tests.acceptance.sandbox.attacks.attack import EVERY_WAY, Collection
from tests.acceptance.sandbox.attacks.siege import Attacker
from tests.acceptance.sandbox.attacks.toolbox import Prey, any_of, call, done, each, libc

collection = attack = Collection()

BY_PATH = "Landlock does not cover it, and a filter of calls sees no paths; as a user of its own it can be set to now"
ONE_SHARED_MEMORY = "multiprocessing needs /dev/shm, and without a mount namespace there is one for all"

AT_FDCWD = -100
IN_ALL = 0xFFF


def text_of(path: str) -> str:
    """What a file holds."""
    with open(path, "rb") as file:
        return file.read(100_000).decode(errors="replace")


@attack(control="root", ways=EVERY_WAY)
def read_the_password_file(prey: Prey) -> str | None:
    return text_of("/etc/shadow")[:20]


@attack(ways=EVERY_WAY)
def read_a_file_that_is_open_to_all(prey: Prey) -> str | None:
    return prey.find(text_of(f"{prey.outside}/open.txt"))


@attack()
def read_by_a_symbolic_link(prey: Prey) -> str | None:
    os.symlink(f"{prey.outside}/open.txt", "link")
    return prey.find(text_of("link"))


@attack()
def read_by_dots(prey: Prey) -> str | None:
    return prey.find(text_of(f"{os.getcwd()}/../../../../../../../..{prey.outside}/open.txt"))


@attack()
def read_below_the_root_of_a_process(prey: Prey) -> str | None:
    pids = {**prey.processes, "self": os.getpid(), "parent": os.getppid()}
    return each(pids, lambda pid: prey.find(text_of(f"/proc/{pid}/root{prey.outside}/open.txt")))


@attack()
def read_below_the_directory_of_a_process(prey: Prey) -> str | None:
    pids = {**prey.processes, "1": 1, "parent": os.getppid()}
    return each(pids, lambda pid: prey.find(text_of(f"/proc/{pid}/cwd{prey.outside}/open.txt")))


@attack()
def list_a_directory(prey: Prey) -> str | None:
    return str([name for name in os.listdir(prey.outside) if name == "open.txt"])


@attack()
def list_the_other_boxes(prey: Prey) -> str | None:
    boxes = os.path.dirname(os.path.dirname(prey.neighbour["scratch"]))
    return str([name for name in os.listdir(boxes) if name in prey.neighbour["scratch"]] or "")


@attack(ways=EVERY_WAY)
def read_the_neighbours_scratch(prey: Prey) -> str | None:
    return prey.find(text_of(f"{prey.neighbour['scratch']}/mine.txt"))


@attack()
def read_the_neighbours_scratch_by_its_process(prey: Prey) -> str | None:
    there = f"{prey.neighbour['scratch']}/mine.txt"
    return any_of(
        {
            "cwd": lambda: prey.find(text_of(f"/proc/{prey.neighbour['worker']}/cwd/mine.txt")),
            "root": lambda: prey.find(text_of(f"/proc/{prey.neighbour['worker']}/root{there}")),
        }
    )


@attack()
def list_the_neighbours_box(prey: Prey) -> str | None:
    return str(os.listdir(os.path.dirname(prey.neighbour["scratch"])))


@attack()
def write_into_the_neighbours_box(prey: Prey) -> str | None:
    path = f"{os.path.dirname(prey.neighbour['scratch'])}/planted"
    with open(path, "w"):
        pass
    os.unlink(path)
    return path


@attack()
def read_what_the_node_keeps(prey: Prey) -> str | None:
    """Its configuration, its store, its keys."""
    keys = f"{prey.state}/keys"
    paths = [prey.config, f"{prey.directory}/store.db", f"{keys}/keys.json", f"{keys}/server.key"]
    return each(paths, lambda path: text_of(path)[:10])


@attack()
def list_what_the_node_keeps(prey: Prey) -> str | None:
    paths = [prey.directory, f"{prey.state}/keys", f"{prey.directory}/boxes"]
    return each(paths, os.listdir)


@attack()
def find_the_node_in_the_file_system(prey: Prey) -> str | None:
    """Whether anything tells where the node's directory is: its lock, its sockets, its records."""
    return any_of(
        {
            "glob": lambda: [name for name in glob.glob(f"{os.path.dirname(prey.directory)}/*/*") if "node" in name],
            "open": lambda: os.open(f"{prey.directory}/node.lock", os.O_RDWR),
        }
    )


@attack(ways=EVERY_WAY)
def make_a_file_outside(prey: Prey) -> str | None:
    path = f"{prey.outside}/made-{os.getpid()}-{os.urandom(4).hex()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    os.unlink(path)
    return path


PLACES = ("/tmp", "/var/tmp", "/run/lock")


async def marks_are_seen(attacker: Attacker) -> str | None:
    """Where a file has come to be outside; what a session has for itself alone is nobody's business."""
    told = attacker.before["told"]
    names = [f"{place}/{told['mark']}" for place in (*PLACES, told["home"])]
    found = [name for name in names if os.path.exists(name)]
    for name in found:
        os.unlink(name)
    return " ".join(found)


def leave_a_mark(prey: Prey, place: str) -> str:
    """Make a file there, for others to find."""
    path = f"{place}/{prey.mark}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL))
    return ""


@attack(after=marks_are_seen)
def make_a_file_where_all_may(prey: Prey) -> str | None:
    return each((*PLACES, prey.home), lambda place: leave_a_mark(prey, place))


async def mark_is_shared(attacker: Attacker) -> str | None:
    """The same of shared memory."""
    name = f"/dev/shm/{attacker.before['told']['mark']}"
    if not os.path.exists(name):
        return None
    os.unlink(name)
    return name


@attack(after=mark_is_shared, residual=("landlock",), risk=ONE_SHARED_MEMORY)
def make_a_file_in_shared_memory(prey: Prey) -> str | None:
    return leave_a_mark(prey, "/dev/shm")


@attack(residual=("landlock/ordinary",), risk=ONE_SHARED_MEMORY)
def read_the_neighbours_shared_memory(prey: Prey) -> str | None:
    """By its name, which is random as a rule."""
    return prey.find(text_of(f"/dev/shm/{prey.neighbour['shared']}"))


@attack()
def list_shared_memory(prey: Prey) -> str | None:
    return str([name for name in os.listdir("/dev/shm") if name == prey.neighbour["shared"]] or "")


@attack()
def write_to_a_file_outside(prey: Prey) -> str | None:
    there = f"{prey.outside}/open.txt"
    return any_of(
        {
            "append": lambda: os.open(there, os.O_WRONLY | os.O_APPEND),
            "both": lambda: os.open(there, os.O_RDWR),
            "truncate": lambda: done(os.truncate, there, os.stat(there).st_size),
            "path": lambda: os.open(f"/proc/self/fd/{os.open(there, os.O_PATH)}", os.O_RDWR),
        }
    )


@attack()
def change_a_file_outside_without_opening_it(prey: Prey) -> str | None:
    """What of a file belongs to its owner: as an ordinary user that is whoever the session is too."""
    there = f"{prey.outside}/open.txt"
    return any_of(
        {
            "chmod": lambda: done(os.chmod, there, 0o666),
            "setxattr": lambda: done(os.setxattr, there, "user.capsule", b"x"),
            "chown": lambda: done(os.chown, there, -1, os.stat(there).st_gid),
        }
    )


@attack(residual=("landlock/root",), risk=BY_PATH)
def change_the_times_of_a_file_outside(prey: Prey) -> str | None:
    return done(os.utime, f"{prey.outside}/open.txt")


@attack()
def change_names_outside(prey: Prey) -> str | None:
    folder = f"{prey.outside}/folder"
    name = f"{folder}/{os.getpid()}-{os.urandom(4).hex()}"
    return any_of(
        {
            "mkdir": lambda: done(os.mkdir, name) + done(os.rmdir, name),
            "symlink": lambda: done(os.symlink, "/", name) + done(os.unlink, name),
            "mkfifo": lambda: done(os.mkfifo, name) + done(os.unlink, name),
            "rename": lambda: done(os.rename, folder, f"{folder}2") + done(os.rename, f"{folder}2", folder),
        }
    )


@attack()
def write_into_a_pipe_outside(prey: Prey) -> str | None:
    pipe = os.open(f"{prey.outside}/fifo", os.O_WRONLY | os.O_NONBLOCK)
    return f"wrote {os.write(pipe, b'x')} byte"


@attack()
def link_a_file_from_outside(prey: Prey) -> str | None:
    os.link(f"{prey.outside}/open.txt", "linked.txt")
    return prey.find(text_of("linked.txt"))


@attack()
def link_a_file_to_outside(prey: Prey) -> str | None:
    with open("inner.txt", "w") as file:
        file.write("from inside")
    there = f"{prey.outside}/folder/{os.urandom(4).hex()}"
    os.link("inner.txt", there)
    os.unlink(there)
    return there


@attack()
def rename_a_file_to_outside(prey: Prey) -> str | None:
    with open("inner.txt", "w") as file:
        file.write("from inside")
    there = f"{prey.outside}/folder/{os.urandom(4).hex()}"
    os.rename("inner.txt", there)
    os.unlink(there)
    return there


@attack()
def rename_a_folder_into_scratch(prey: Prey) -> str | None:
    os.rename(f"{prey.outside}/folder", "stolen")
    os.rename("stolen", f"{prey.outside}/folder")
    return "took it"


@attack()
def watch_a_directory_outside(prey: Prey) -> str | None:
    """Names of files that others open or make there."""
    watcher = call("inotify_init1", os.O_NONBLOCK)
    call("inotify_add_watch", watcher, f"{prey.outside}/folder".encode(), IN_ALL)
    return "may listen"


@attack(control="root")
def write_where_modules_are_imported_from(prey: Prey) -> str | None:
    """Code there runs in the zygote, in the node, in every other session."""
    return each((os.__file__, ctypes.__file__), lambda path: os.open(path, os.O_RDWR))


@attack(control="root")
def make_a_module_for_others(prey: Prey) -> str | None:
    path = f"{os.path.dirname(os.__file__)}/capsule_planted_{os.getpid()}.py"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL))
    os.unlink(path)
    return path


@attack(control="root")
def turn_the_knobs_of_the_kernel(prey: Prey) -> str | None:
    """Opened for writing, and not written to."""
    knobs = ["kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "vm/overcommit_memory", "fs/file-max"]
    paths = [f"/proc/sys/{knob}" for knob in knobs]
    paths += ["/proc/sysrq-trigger", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled"]
    paths += ["/proc/1/oom_score_adj", f"/proc/{prey.victim}/oom_score_adj", "/sys/fs/cgroup/pids/cgroup.procs"]
    return each(paths, lambda path: os.open(path, os.O_WRONLY))


@attack(control="root")
def open_a_device(prey: Prey) -> str | None:
    names = ["vda", "mem", "kmsg", "kvm", "fuse", "loop0", "loop-control", "tty0", "console", "ttyS0", "vsock", "port"]
    names += ["userfaultfd", "btrfs-control", "cpu_dma_latency", "vcs", "net/tun", "zram0", "hwrng"]
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    return each(names, lambda name: os.open(f"/dev/{name}", flags))


@attack(control="root", ways=EVERY_WAY)
def make_a_device(prey: Prey) -> str | None:
    path = f"device-{os.urandom(4).hex()}"
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 11))
    return f"opened {os.open(path, os.O_RDONLY | os.O_NONBLOCK)}"


@attack(control="root", ways=EVERY_WAY)
def open_by_a_handle(prey: Prey) -> str | None:
    """A handle needs no path that can be forbidden: the root of a file system has inode 2."""
    handle = ctypes.create_string_buffer(struct.pack("II", 128, 0), 136)
    mount = ctypes.c_int()
    path = f"{prey.outside}/open.txt".encode()
    try:
        call("name_to_handle_at", AT_FDCWD, path, handle, ctypes.byref(mount), 0)
    except OSError:
        struct.pack_into("IIII", handle, 0, 8, 1, 2, 0)
    anchor = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    opened = call("open_by_handle_at", anchor, handle, os.O_RDONLY | os.O_PATH)
    return f"descriptor {opened}"


@attack(control="root")
def climb_out_of_a_root_of_its_own(prey: Prey) -> str | None:
    os.makedirs("cell", exist_ok=True)
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot("cell")
    os.fchdir(top)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return prey.find(text_of(f"{prey.outside}/open.txt"))


@attack(control="never", why="no worker has such descriptors, sandboxed or not")
def leave_by_an_inherited_descriptor(prey: Prey) -> str | None:
    """A directory that is open leads to all that is beside it, whatever paths are forbidden."""
    here = os.path.dirname(os.getcwd())
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            status, path = os.fstat(int(name)), os.readlink(f"/proc/self/fd/{name}")
        except OSError as error:
            if error.errno in {errno.EBADF, errno.ENOENT}:
                continue
            raise
        leads_on = stat.S_ISDIR(status.st_mode) and not path.startswith("/proc/")
        if (leads_on or stat.S_ISBLK(status.st_mode) or path.startswith(("/tmp/", prey.state))) and here not in path:
            found.append(path)
    return " ".join(found)


@attack()
def read_by_the_loader(prey: Prey) -> str | None:
    """The dynamic loader opens and runs what its name is told, as do other programs."""
    os.environ["LD_PRELOAD"] = f"{prey.outside}/open.txt"
    handle = libc.open(f"{prey.outside}/open.txt".encode(), 0)
    if handle < 0:
        raise OSError(ctypes.get_errno(), "open")
    return prey.find(os.read(handle, 100))


@attack()
def run_a_program_from_outside(prey: Prey) -> str | None:
    import subprocess

    path = f"{prey.outside}/folder/program-{os.urandom(4).hex()}"
    if not prey.suid:
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\necho {prey.secret}\n")
        os.chmod(path, 0o755)
        done = subprocess.run([path], capture_output=True, check=False)
        os.unlink(path)
        return prey.find(done.stdout)
    return subprocess.run([prey.suid], capture_output=True, text=True, check=False).stdout
