"""pyplot's figures, apart for each subshell: what one draws, no other finds as its current figure, nor shows.

matplotlib keeps them, and what is still to be shown, in one place for the whole process. From the first subshell on
that place is the calling thread's: its own in a subshell, and everywhere else the main shell's.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HELPERS = "matplotlib._pylab_helpers"
_INLINE = "matplotlib_inline.backend_inline"


class _State:
    """What belongs to one shell."""

    def __init__(self) -> None:
        self.figures: OrderedDict[Any, Any] = OrderedDict()
        self.draw_called = False
        self.to_draw: list[Any] = []


_main = _State()
_here = threading.local()


def _state() -> _State:
    found: _State = getattr(_here, "state", _main)
    return found


def keep_apart_here() -> None:
    """The calling thread is a subshell's."""
    _here.state = _State()


def install() -> None:
    """Keep figures apart, now or as soon as matplotlib is imported. Idempotent."""
    for name, replace in _REPLACE.items():
        if name in sys.modules:
            replace(sys.modules[name])
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Figures:
    """In the place of the dictionary of all figures by their numbers: that of the calling thread's shell."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_state().figures, name)

    def __getitem__(self, number: Any) -> Any:
        return _state().figures[number]

    def __setitem__(self, number: Any, manager: Any) -> None:
        _state().figures[number] = manager

    def __delitem__(self, number: Any) -> None:
        del _state().figures[number]

    def __contains__(self, number: Any) -> bool:
        return number in _state().figures

    def __iter__(self) -> Iterator[Any]:
        return iter(_state().figures)

    def __reversed__(self) -> Iterator[Any]:
        return iter(reversed(_state().figures))

    def __len__(self) -> int:
        return len(_state().figures)


class _Show:
    """In the place of the inline backend's `show`, which notes on itself what is to be shown at the end of a cell."""

    def __init__(self, show: Callable[..., Any]) -> None:
        update_wrapper(self, show)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.__wrapped__(*arguments, **keywords)  # type: ignore[attr-defined]  # set by update_wrapper

    @property
    def _draw_called(self) -> bool:
        return _state().draw_called

    @_draw_called.setter
    def _draw_called(self, value: bool) -> None:
        _state().draw_called = value

    @property
    def _to_draw(self) -> list[Any]:
        return _state().to_draw

    @_to_draw.setter
    def _to_draw(self, value: list[Any]) -> None:
        _state().to_draw = value


def _replace_figures(helpers: Any) -> None:
    if not isinstance(helpers.Gcf.figs, _Figures):
        _main.figures = helpers.Gcf.figs
        helpers.Gcf.figs = _Figures()


def _replace_show(inline: Any) -> None:
    show = inline.show
    if not isinstance(show, _Show):
        _main.draw_called, _main.to_draw = show._draw_called, show._to_draw  # noqa: SLF001  # what is to be kept apart
        del show._draw_called, show._to_draw  # noqa: SLF001  # or they would come along
        inline.show = _Show(show)


_REPLACE: dict[str, Callable[[ModuleType], None]] = {_HELPERS: _replace_figures, _INLINE: _replace_show}


class _Watch:
    """Finds nothing by itself; what others find of matplotlib is changed when it has been loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        replace = _REPLACE.get(name)
        if replace is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                _when_loaded(spec.loader, replace)
                return spec
        return None


def _when_loaded(loader: Any, replace: Callable[[ModuleType], None]) -> None:
    load = loader.exec_module

    def load_and_replace(module: ModuleType) -> None:
        load(module)
        replace(module)

    loader.exec_module = load_and_replace
