"""What a traceback shows of the code of the session, and nothing of the worker's."""

from __future__ import annotations

import sys
import types
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

_OWN = str(Path(__file__).parent)
_IPYTHON = str(sys.modules[InteractiveShell.__module__].__file__)


def user_frames(frames: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without the frames of the worker, and of IPython where it leads to the user's code."""
    kept: list[types.TracebackType] = []
    while frames is not None:
        name = frames.tb_frame.f_code.co_filename
        if not name.startswith(_OWN) and (kept or name != _IPYTHON):
            kept.append(frames)
        frames = frames.tb_next
    for frame in reversed(kept):
        # An interrupt may come in an instruction that belongs to no line.
        line = frame.tb_lineno or frame.tb_frame.f_code.co_firstlineno
        frames = types.TracebackType(frames, frame.tb_frame, frame.tb_lasti, line)
    return frames


def note_last(error: BaseException) -> None:
    """It is what `%tb` and `pdb.pm()` are about."""
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, user_frames(error.__traceback__)
