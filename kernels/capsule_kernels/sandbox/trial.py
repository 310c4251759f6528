"""Whether a sandbox can be had: it is entered once, in processes of its own, before anybody relies on it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile

from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.levels import Sandbox

_MOST: int = 64 * 1024


def try_out(sandbox: Sandbox, parent: str) -> None:
    """Do all that a worker does, in a directory below `parent`, and see whether Python can still be run.

    Raises SandboxError. Only for a process with one thread that has no other children.
    """
    directory = tempfile.mkdtemp(prefix="capsule-trial-", dir=parent or None)
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = sandbox.fork()
        if pid == 0:
            try:
                _in_box(sandbox, directory, write)
            finally:
                os._exit(1)
        os.close(write)
        with open(read, "rb", closefd=False) as file:  # a descriptor
            told = file.read(_MOST)
        os.waitpid(pid, 0)
    except OSError as error:
        raise SandboxError(f"namespaces cannot be made: {error}", _HINT) from error
    finally:
        os.close(read)
        shutil.rmtree(directory, ignore_errors=True)
    if not told:
        raise SandboxError("a process that tried the sandbox was killed in it")
    answer = json.loads(told)
    if answer:
        raise SandboxError(answer["message"], answer["hint"])


_HINT = "`capsule doctor` tells what stands in the way of the level `namespaces`; `landlock` needs less."


def main() -> None:
    """For `capsule doctor`, in a process of its own: `LEVEL OPTIONS` on the command line, the answer on stdout."""
    level, options = sys.argv[1], json.loads(sys.argv[2])
    answer: dict[str, str] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="capsule-trial-") as parent:
            os.chmod(parent, 0o711)  # noqa: PTH101, S103
            try_out(Sandbox({**options, "level": level}), parent)
    except SandboxError as error:
        answer = {"message": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(answer))


def _in_box(sandbox: Sandbox, directory: str, write: int) -> None:
    try:
        sandbox.settle()
        pid = os.fork()
        if pid:
            os.close(write)
            os.waitpid(pid, 0)
            os._exit(0)
        sandbox.enter(directory)
        _check_interpreter()
        answer: dict[str, str] = {}
    except SandboxError as error:
        answer = {"message": error.message, "hint": error.hint}
    except OSError as error:
        answer = {"message": f"the sandbox cannot be entered: {error}", "hint": _HINT}
    os.write(write, json.dumps(answer).encode())
    os._exit(0)


def _check_interpreter() -> None:
    """Whoever the code runs as, it imports modules and may start Python."""
    for path, mode in ((sys.executable, os.X_OK), (os.__file__, os.R_OK)):
        if not os.access(path, mode):
            raise SandboxError(
                f"user {os.getuid()}, as whom the code runs, may not read {os.path.realpath(path)}",
                "Use an interpreter that all users can read, or the level `namespaces`; or set `uid = 0`, and the code "
                "runs as root without its powers.",
            )


if __name__ == "__main__":
    main()
