"""Rich display: MIME bundles, display ids and updates, clear_output, progress; and the value of a cell."""

from __future__ import annotations

import base64
import builtins
import datetime
import numbers
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from IPython.core.display_trap import DisplayTrap
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher

if TYPE_CHECKING:
    from capsule_kernels.publisher import Publisher

_PLAIN = (int, bool, str, bytes)
"""Types of which IPython shows the repr, and nothing but the repr."""

PROGRESS_INTERVAL = 0.05
"""Seconds between two progress messages of one worker; those in between are dropped, the last one (full) never."""


class CellDisplayPublisher(DisplayPublisher):  # type: ignore[misc]  # IPython is untyped
    """What `display()` and `clear_output()` reach: sends messages of the execution that the caller belongs to."""

    publisher: Publisher | None = None

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: Any = None,  # noqa: ARG002  # IPython's signature
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_more: Any,
    ) -> None:
        """Send a MIME bundle; TypeError for what is none."""
        self._validate_data(data, metadata)
        if self.publisher is not None:
            more = dict(transient or {})
            display_id = more.get("display_id")
            if display_id is None or isinstance(display_id, str):  # else front ends get it as it is, too
                more.pop("display_id", None)
            body = {
                "data": plain(data),
                "metadata": plain(metadata or {}),
                "display_id": None if display_id is None else str(display_id),
                "update": bool(update),
            }
            if more:
                body["transient"] = plain(more)
            self.publisher.publish("display", body)

    def publish_value(self, data: dict[str, Any], metadata: dict[str, Any], count: int) -> None:
        """Send the value of an expression of the code with this number."""
        if self.publisher is not None:
            self.publisher.publish("display", {"data": data, "metadata": metadata, "execution_count": count})

    def clear_output(self, wait: bool = False) -> None:
        """Forget what the execution has shown."""
        if self.publisher is not None:
            self.publisher.publish("clear_output", {"wait": bool(wait)})


class HeldDisplayTrap(DisplayTrap):  # type: ignore[misc]  # IPython is untyped
    """Leaves `sys.displayhook` alone when IPython runs a cell within a cell: what captures values there gets them.

    The worker sets the hook when a cell of a client's begins. Several threads may be within it.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    @property
    def is_active(self) -> bool:
        """Always."""
        return True


class _Here(threading.local):
    """Of each thread; `hook` None: its values are the main shell's."""

    hook: CellDisplayHook | None = None


_here = _Here()


Bundle = tuple[dict[str, Any], dict[str, Any]]


class Ended(NamedTuple):
    """What a cell's code leaves: its value, whether a display had it, and the error of a value that cannot be shown."""

    value: Bundle | None
    is_shown: bool
    broken: tuple[BaseException, list[str]] | None


class CellDisplayHook(DisplayHook):  # type: ignore[misc]  # IPython is untyped
    """Keeps the formatted value of the last expression for the verdict.

    `at_once`: a value is shown when it comes, for it is not the last one. `count`: the number of the cell that runs.
    `broken`: the error of a value that cannot be shown, and its traceback.
    """

    _: Any
    __: Any
    ___: Any

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.begin()

    def begin(self, count: int = 0, *, at_once: bool = True) -> None:
        """Values are those of another cell from here on."""
        self.value: Bundle | None = None
        self.is_shown = False
        self.count, self.at_once = count, at_once
        self.broken: tuple[BaseException, list[str]] | None = None
        self._formatting = False

    def end(self) -> Ended:
        """The code of the cell is over; what callbacks, threads and comms show from here on is no value of it."""
        self.at_once = True
        ended = Ended(self.value, self.is_shown, self.broken)
        self.begin(self.count)
        return ended

    @property
    def prompt_count(self) -> int:
        """The number of the running cell; IPython counts up before a cell runs, the worker after it."""
        return int(self.shell.execution_count)

    def note_printers(self) -> None:
        """Take the printers of now for IPython's own: what they make of a plain value need not be asked again."""
        self._names = self.shell.user_ns, self.shell.user_ns_hidden
        formatter = self.shell.display_formatter
        self._formatters = formatter.formatters
        self._printers = [one.type_printers for one in formatter.formatters.values()]
        self._known = {kind: self._printers_of(kind) for kind in _PLAIN}

    def _printers_of(self, kind: type) -> list[Any]:
        return [printers.get(kind) for printers in self._printers]

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The MIME bundle of a value; of a number or a string without a printer of the user's, its repr at once."""
        kind = type(result)
        known = self._known.get(kind)
        if known is not None and known == self._printers_of(kind) and len(self._formatters) == len(self._printers):
            with suppress(ValueError):  # a number with too many digits: IPython shows the error
                return {"text/plain": repr(result)}, {}
        found: tuple[dict[str, Any], dict[str, Any]] = super().compute_format_data(result)
        return found

    def quiet(self) -> bool:
        """Whether a semicolon hides the value: the cell knows, the history may not have it."""
        return False

    def write_output_prompt(self) -> None:
        """No prompt: the client shows the count."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Keep a value; one that was kept before is shown. TypeError for what is no MIME bundle."""
        self.shell.display_pub._validate_data(format_dict, md_dict)  # noqa: SLF001  # as `display` does with it
        self.show_kept()
        self.value, self.is_shown = (plain(format_dict), plain(md_dict or {})), False
        if self.at_once:
            self.show_kept()

    def note_broken(self, error: BaseException, lines: list[str]) -> None:
        """An error was shown; if it is that of a value that cannot be shown, front ends take the cell for failed."""
        if self._formatting:
            self.broken = error, lines

    def show_kept(self) -> None:
        """Show what is kept, now, if it was not yet."""
        if self.value is not None and not self.is_shown:
            self.is_shown = True
            self.shell.own_display.publish_value(*self.value, self.count)

    def cull_cache(self) -> None:
        """The bound on `Out` is reached: the oldest values go, without a word among the cell's output."""
        kept = self.shell.user_ns["_oh"]
        for count in sorted(kept)[: max(1, int(len(kept) * self.cull_fraction))]:
            del kept[count]
            self.shell.user_ns.pop(f"_{count}", None)

    def serve_here(self) -> None:
        """Have what the calling thread shows, also by way of `sys.displayhook`, which all threads share."""
        _here.hook = self

    @property
    def here(self) -> CellDisplayHook:
        """That of the calling thread."""
        return _here.hook or self

    def __call__(self, result: Any = None) -> None:
        """Show a value: keep its bundle for the verdict, and the value itself in `_` and `Out`."""
        hook = self.here
        if hook is self:
            self._show(result)
        else:
            hook._show(result)  # noqa: SLF001  # of the same class
            self.fill_exec_result(result)  # where a cell within the thread's cell looks for it

    def _show(self, result: Any) -> None:
        self.check_for_underscore()
        if result is None:
            return
        self._formatting = True
        try:
            data, metadata = self.compute_format_data(result)
        finally:
            self._formatting = False
        self.update_user_ns(result)
        self.fill_exec_result(result)
        if data:
            self.write_format_data(data, metadata)
            self.log_output(data)

    def update_user_ns(self, result: Any) -> None:
        """Set `_`, `__`, `___`, `_<count>` and `Out` as IPython does, which asks its traits two dozen times for it."""
        names, hidden = self._names
        out = names["_oh"]
        if not self.cache_size or result is out:
            return
        if self.do_full_cache and len(out) >= self.cache_size:
            self.cull_cache()
        mine = {"_": self._, "__": self.__, "___": self.___}
        is_mine = all(name not in names or names[name] is hidden.get(name, value) for name, value in mine.items())
        self.___, self.__, self._ = self.__, self._, result
        new = {"_": self._, "__": self.__, "___": self.___} if is_mine and "_" not in vars(builtins) else {}
        if self.do_full_cache:
            count = self.prompt_count
            new[f"_{count}"] = out[count] = result
        names.update(new)
        hidden.update(new)


class Progress:
    """`capsule_progress(current, total, text)`: rate-limited, so that a fast loop is not slowed by telling of it."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._last = 0.0
        self._full: tuple[float | None, str] | None = None

    def __call__(self, current: float | None = None, total: float | None = None, text: str = "") -> None:
        """Say how far the code is; `total` None: unknown."""
        now = time.monotonic()
        full = (total, text) if total is not None and current == total else None
        if now - self._last < PROGRESS_INTERVAL and (full is None or full == self._full):
            return
        body = {
            "current": None if current is None else float(current),
            "total": None if total is None else float(total),
            "text": str(text),
        }
        self._last, self._full = now, full
        self._publisher.publish("progress", body, fenced=False)


def plain(value: Any) -> Any:
    """The value as what msgpack carries: bytes become base64 text as in Jupyter, unknown objects their `str`."""
    kind = type(value)
    if kind is str or value is None or kind is bool or kind is float:
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -(2**63) <= number < 2**64 else str(number)
    if isinstance(value, str):
        return str.__str__(value)  # a subclass, as an enumeration's member, may have a `str` that is not its text
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode("ascii")
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in value]
    return _converted(value)


def _key(key: Any) -> str:
    return str.__str__(key) if isinstance(key, str) else str(key)


def _converted(value: Any) -> Any:
    """A value of a type that JSON does not know: numpy's and other numbers as numbers, dates as in Jupyter."""
    kind = type(value)
    if callable(getattr(kind, "tolist", None)) and type(listed := value.tolist()) is not kind:
        return plain(listed)
    if isinstance(value, numbers.Integral):
        return plain(int(value))
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    try:
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001  # a user's object answers as it likes
        return f"<{kind.__name__}>"
