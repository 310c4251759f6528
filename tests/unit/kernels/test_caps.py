"""What calls answer and raise: values like others, which can be copied, compared and pickled."""

from __future__ import annotations

import copy
import pickle

import pytest

from capsule_kernels.caps import Response, _translate
from capsule_protocol.errors import CapabilityFailed

ANSWER = Response({"size": 3, "names": ["a"]}, b"abc")
CODES = {
    "path_unknown": FileNotFoundError,
    "path_exists": FileExistsError,
    "path_is_directory": IsADirectoryError,
    "path_not_directory": NotADirectoryError,
    "capability_invalid": ValueError,
    "program_failed": CapabilityFailed,
}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_an_answer_can_be_copied_and_pickled_and_equals_its_copy(copied: object) -> None:
    assert callable(copied)
    other = copied(ANSWER)
    assert type(other) is Response
    assert other is not ANSWER
    assert other == ANSWER != Response({"size": 4})
    assert (other.size, other.names, other["data"], other.text) == (3, ["a"], b"abc", "abc")


def test_an_answer_without_fields_yet_has_no_attribute() -> None:
    """As whoever copies it finds it."""
    assert not hasattr(Response.__new__(Response), "anything")


@pytest.mark.parametrize("code", CODES)
def test_a_failure_can_be_copied_and_pickled_and_stays_what_it_is(code: str) -> None:
    """As on its way out of a pool of processes."""
    error = _translate(CapabilityFailed(code, "it", hint="so", retryable=True, details={"a": [1]}))
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert isinstance(other, CODES[code])
        assert other.as_dict() == error.as_dict()
