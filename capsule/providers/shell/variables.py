"""The environment of a program: what the grant says, what the session may add, and nothing of the node's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
"""What every program has, unless its grant says otherwise; HOME and TMPDIR are the run's own directory."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PREFIXES = (
    *("LD_", "DYLD_", "GLIBC_", "MALLOC_", "GCONV_", "LOC", "NLS", "LC_", "LANG"),
    *("BASH", "PYTHON", "PERL", "RUBY", "NODE_", "NPM_", "JAVA_", "JDK_", "_JAVA", "CLASSPATH", "LUA", "PHP", "TCL"),
    *("GEM_", "BUNDLE_", "PIP_", "CARGO_", "RUST", "GO", "DOTNET_", "ELECTRON_", "MAKE", "CC", "CXX"),
    *("GIT_", "SSH_", "SSL_", "OPENSSL_", "CURL_", "XDG_", "DBUS_", "WAYLAND_", "TERM", "LESS", "HIST"),
)
_EXACT = frozenset(
    {
        *(
            "PATH",
            "IFS",
            "ENV",
            "SHELLOPTS",
            "PS0",
            "PS1",
            "PS2",
            "PS3",
            "PS4",
            "CDPATH",
            "FPATH",
            "ZDOTDIR",
            "INPUTRC",
        ),
        *("SHELL", "HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMP", "DISPLAY", "TZDIR"),
        *("HOSTALIASES", "RES_OPTIONS", "LOCALDOMAIN", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER"),
    }
)
_PARTS = ("PRELOAD", "_PROXY", "_COMMAND", "_EXEC", "_OPTIONS", "_OPTS")


def is_name(name: str) -> bool:
    """Whether a variable can be called that."""
    return _NAME.fullmatch(name) is not None


def decides_what_runs(name: str) -> bool:
    """Whether a session that sets the variable could have a program run, load, read or reach something else.

    A list can only have what is known. It keeps an operator from a slip; what a grant lets through is still a decision.
    """
    upper = name.upper()
    return upper.startswith(_PREFIXES) or upper in _EXACT or any(part in upper for part in _PARTS)
