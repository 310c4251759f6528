"""The code that every contender of area `execute` is given, and what it has to show for it."""

from __future__ import annotations

from capsule_bench.model import WrongResultError

ONE_PLUS_ONE = "1+1"
SLEEP_ZERO = "await asyncio.sleep(0)"
IMPORT_ASYNCIO = "import asyncio"
COUNT_FROM_ZERO = "count = 0"
COUNT = "count += 1"
COUNTED = "count"
SPIN = "print('running', flush=True)\nwhile True: pass"
WAIT = "print('running', flush=True)\nimport time; time.sleep(600)"
RUNNING = "running\n"
WINDOW = 100
"""How many executions a client keeps in flight when it measures pipelined ones."""

_BLOCK = "0123456789" * 100_000


def lines(count: int) -> tuple[str, str]:
    """Code that prints so many lines, and its output."""
    return f"for i in range({count}): print(i)", "".join(f"{number}\n" for number in range(count))


def megabytes(count: int) -> tuple[str, str]:
    """Code that writes so many numbered blocks of 1,000,000 bytes, and its output."""
    code = (
        "import sys\n"
        "block = '0123456789' * 100_000\n"
        f"for i in range({count}): sys.stdout.write(f'{{i:08d}}' + block[8:-1] + '\\n')"
    )
    return code, "".join(f"{number:08d}{_BLOCK[8:-1]}\n" for number in range(count))


def long_string(megabytes: int) -> tuple[str, str]:
    """Code whose last expression is a string of so many million characters, and the text of its value."""
    return f"'0123456789' * {megabytes * 100_000}", repr("0123456789" * (megabytes * 100_000))


def expect(what: str, got: object, wanted: object) -> None:
    """Raise WrongResultError unless both are equal; long texts are told by their lengths and first difference."""
    if got == wanted:
        return
    if isinstance(got, str) and isinstance(wanted, str) and len(wanted) > 80:
        place = next(
            (i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted))
        )
        raise WrongResultError(
            f"{what}: {len(got):,} characters of {len(wanted):,}, different from character {place:,} on"
        )
    raise WrongResultError(f"{what}: got {got!r:.80}, wanted {wanted!r:.80}")
