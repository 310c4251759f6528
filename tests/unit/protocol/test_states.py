from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.messages import MESSAGES
from capsule_protocol.sequence import SequenceChecker
from capsule_protocol.states import LINKS, SENDS, TABLES, URGENT, Machine

quick = settings.get_profile("protocol")
EVENTS = sorted(MESSAGES)
PAIRS = [(name, state, event) for name, table in TABLES.items() for state in table for event in EVENTS]


@pytest.mark.parametrize("breach", [LocalProtocolError, RemoteProtocolError])
def test_every_state_and_event(breach: type[LocalProtocolError | RemoteProtocolError]) -> None:
    for name, state, event in PAIRS:
        machine = Machine(name, TABLES[name], state)
        following = TABLES[name][state].get(event)
        if following is not None:
            assert machine.fire(event, breach) == machine.state == following
            continue
        with pytest.raises(breach, match=f"{event} is not allowed while the {name} is {state}") as caught:
            machine.fire(event, breach)
        assert caught.value.code == "unexpected_message"
        assert machine.state == state


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_only_states_and_types_that_exist(name: str) -> None:
    table = TABLES[name]
    for state, events in table.items():
        assert set(events) <= set(EVENTS), state
        assert set(events.values()) <= set(table), state


@pytest.mark.parametrize("name", TABLES)
def test_every_state_can_be_reached_and_the_last_can_always_be_reached(name: str) -> None:
    table = TABLES[name]
    first, last = next(iter(table)), list(table)[-1]
    entries = {"sent", "resumed"} if name == "execution" else {first}  # a request begins one, or a resumption
    assert set().union(*(reachable(table, entry) for entry in entries)) == set(table)
    assert all(last in reachable(table, state) for state in table)
    assert table[last] == {}


def reachable(table: dict[str, dict[str, str]], start: str) -> set[str]:
    seen, todo = {start}, [start]
    while todo:
        fresh = set(table[todo.pop()].values()) - seen
        seen |= fresh
        todo += fresh
    return seen


def test_every_type_is_sent_by_somebody_and_allowed_on_its_link() -> None:
    assert frozenset().union(*(kinds for link in SENDS.values() for kinds in link.values())) == set(EVENTS)
    for link, ends in SENDS.items():
        allowed = frozenset().union(*LINKS[link].values())
        assert allowed == frozenset().union(*ends.values())
    assert set(EVENTS) >= URGENT


@settings(quick)
@given(st.sampled_from(sorted(TABLES)), st.lists(st.sampled_from(EVENTS), max_size=30))
def test_any_run_of_events_stays_inside_the_table(name: str, events: list[str]) -> None:
    table = TABLES[name]
    machine = Machine(name, table, next(iter(table)))
    for event in events:
        before = machine.state
        try:
            machine.fire(event, RemoteProtocolError)
        except RemoteProtocolError:
            assert event not in table[before]
            assert machine.state == before
        else:
            assert machine.state == table[before][event]


@settings(quick)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=10))
def test_a_sequence_is_1_2_3_up_to_the_verdict(events: list[tuple[int, bool]]) -> None:
    checker = SequenceChecker()
    accepted: list[tuple[int, bool]] = []
    for sequence, verdict in events:
        try:
            checker.check(sequence, verdict=verdict)
        except RemoteProtocolError as error:
            ended = bool(accepted) and accepted[-1][1]
            expected = "unexpected_message" if ended else "sequence_gap"
            assert (error.code, sequence == len(accepted) + 1 and not ended) == (expected, False)  # noqa: PT017
        else:
            accepted.append((sequence, verdict))
    assert [sequence for sequence, _ in accepted] == list(range(1, len(accepted) + 1))
    assert not any(verdict for _, verdict in accepted[:-1])


def test_a_sequence_goes_on_behind_the_event_from_which_a_client_resumes() -> None:
    checker = SequenceChecker(last=7)
    checker.check(8)
    with pytest.raises(RemoteProtocolError, match="event 8 came where 9 was due"):
        checker.check(8)
