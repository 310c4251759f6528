"""Attacks from within sessions: none gets out where that is promised, and each does where nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.sandbox.attacks import runner
from tests.acceptance.sandbox.attacks.attack import OWN, SANDBOXED, Level, User
from tests.acceptance.sandbox.attacks.siege import Ending

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = runner.KINDS
# As whom the tests run. `make attacks` does it as both, and where nothing forbids anything, which takes minutes.

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def endings() -> Callable[[User, Level], list[Ending]]:
    """How all attacks ended; a siege takes a while and is made once."""
    known: dict[tuple[User, Level], list[Ending]] = {}

    def look_up(user: User, level: Level) -> list[Ending]:
        if (user, level) not in known:
            known[user, level] = runner.run(user, [level])
        return known[user, level]

    return look_up


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", SANDBOXED)
def test_nothing_escapes_that_is_promised_to_be_held(
    endings: Callable[[User, Level], list[Ending]], level: Level, kind: str
) -> None:
    of_kind = [ending for ending in endings(OWN, level) if ending.kind == kind]
    print(f"{kind} at {level} as {OWN}: {runner.summary(of_kind, level, OWN)}")
    assert of_kind
    assert not runner.faults(of_kind, OWN)


@pytest.mark.slow
@pytest.mark.parametrize("level", SANDBOXED)
def test_nothing_escapes_from_workers_that_are_interpreters_of_their_own(level: Level) -> None:
    endings = runner.run(OWN, [level], ("kernel", "processes"), start_method="spawn")
    print(f"{level} as {OWN}, spawn: {runner.summary(endings, level, OWN)}")
    assert endings
    assert not runner.faults(endings, OWN)


def test_each_attack_is_known_by_one_name_and_has_a_control_or_says_why_not() -> None:
    attacks = runner.attacks()
    names = [attack.name for attack in attacks]
    assert len(set(names)) == len(names) > 100
    for attack in attacks:
        assert attack.why or attack.control in {"any", "root"}, attack.name
        assert attack.risk or not attack.residual, attack.name
        compile(attack.code({}), attack.name, "exec")


def test_an_escape_a_vain_control_and_a_broken_attack_are_faults() -> None:
    """What looks at the endings sees all three, and nothing where nothing is promised."""
    attack = next(attack for attack in runner.attacks() if attack.control == "any" and not attack.residual)
    weak = next(attack for attack in runner.attacks() if "landlock" in attack.residual and not attack.grouped)

    def faults(name: str, level: Level, how: str) -> int:
        return len(runner.faults([Ending(name, "", level, "main", how, "")], "root"))

    assert faults(attack.name, "landlock", "escaped") == 1
    assert faults(attack.name, "landlock", "held") == 0
    assert faults(attack.name, "landlock", "broken") == 1
    assert faults(attack.name, "none", "held") == 1
    assert faults(attack.name, "none", "escaped") == 0
    assert faults(weak.name, "landlock", "escaped") == 0
    assert faults(weak.name, "namespaces", "escaped") == 1
