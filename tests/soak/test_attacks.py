"""The attacks on sandboxed sessions again and again, many at once and in any order: none gets out by chance."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, get_args

import pytest

from tests.acceptance.sandbox.attacks import runner
from tests.acceptance.sandbox.attacks.attack import SANDBOXED, User

if TYPE_CHECKING:
    from tests.acceptance.sandbox.attacks.attack import Level

USERS = [user for user in get_args(User) if user == "ordinary" or os.geteuid() == 0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("user", USERS)
def test_each_attack_gets_through_where_nothing_forbids_it(user: User) -> None:
    """Else it has proved nothing elsewhere."""
    endings = runner.run(user, ["none"])
    print(f"none as {user}: {runner.summary(endings, 'none', user)}")
    assert endings
    assert not runner.faults(endings, user)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("level", SANDBOXED)
@pytest.mark.parametrize("user", USERS)
def test_nothing_escapes_in_many_rounds(user: User, level: Level) -> None:
    endings = runner.run(user, [level], rounds=5, at_once=8)
    print(f"{level} as {user}: {runner.summary(endings, level, user)}")
    assert not runner.faults(endings, user)
