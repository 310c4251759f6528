"""Which of many rules name a value, without a look at each: a set of rules is a number, a rule one of its bits."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

KNOWN = 1024
"""Values whose rules are remembered."""
EVERYTHING = "*"
_SPECIAL = frozenset("*?[")
Glob = tuple[re.Pattern[str], int]


class Names:
    """The patterns of all rules for one thing, say the principal: exact names, and globs with `*`, `?` and `[…]`.

    `team-*` and `*-test` cost as little as exact names; of other globs those are tried whose beginning fits.
    """

    def __init__(self, rows: Iterable[Sequence[str]]) -> None:
        self._everything = 0
        self._exact: dict[str, int] = {}
        self._begins: dict[int, dict[str, int]] = {}
        self._ends: dict[int, dict[str, int]] = {}
        globs: dict[str, int] = {}
        for number, patterns in enumerate(rows):
            for pattern in patterns:
                self._add(pattern, 1 << number, globs)
        self._globs: dict[int, dict[str, list[Glob]]] = {}
        for pattern, mask in globs.items():
            begin = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
            found = self._globs.setdefault(len(begin), {}).setdefault(begin, [])
            found.append((re.compile(translate(pattern)), mask))
        self.naming: Callable[[str], int] = lru_cache(KNOWN)(self.search)

    def search(self, value: str) -> int:
        """The rules that name this value; `naming` remembers."""
        mask = self._everything | self._exact.get(value, 0)
        for length, found in self._begins.items():
            mask |= found.get(value[:length], 0)
        for length, found in self._ends.items():
            mask |= found.get(value[-length:], 0)
        for length, begins in self._globs.items():
            for glob, rules in begins.get(value[:length], ()):
                if glob.match(value):
                    mask |= rules
        return mask

    def _add(self, pattern: str, bit: int, globs: dict[str, int]) -> None:
        if pattern == EVERYTHING:
            self._everything |= bit
        elif not _SPECIAL & set(pattern):
            _set(self._exact, pattern, bit)
        elif pattern.endswith("*") and not _SPECIAL & set(pattern[:-1]):
            _set(self._begins.setdefault(len(pattern) - 1, {}), pattern[:-1], bit)
        elif pattern.startswith("*") and not _SPECIAL & set(pattern[1:]):
            _set(self._ends.setdefault(len(pattern) - 1, {}), pattern[1:], bit)
        else:
            _set(globs, pattern, bit)


def covers(pattern: str, capability: str) -> bool:
    """Whether a pattern of capabilities (`files.read`, `files.*`, `*`) covers this one."""
    return pattern in {EVERYTHING, capability, f"{capability.partition('.')[0]}.*"}


def bits(mask: int) -> Iterator[int]:
    """The numbers of the rules in a set, from the first on."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _set(found: dict[str, int], key: str, bit: int) -> None:
    found[key] = found.get(key, 0) | bit
