"""The fresh process of one contender: `python -P -m capsule_bench.child JOB`, where JOB is a job as JSON."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from capsule_bench.machine import versions
from capsule_bench.model import Load, Measured


@dataclass(frozen=True, slots=True)
class Job:
    """Call `measure` of `module` with `load` and write the answer to the file `answer`."""

    module: str
    measure: str
    load: Load
    packages: tuple[str, ...]
    answer: str

    def as_json(self) -> str:
        """The one argument of the process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The opposite of `as_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "load": Load(**fields["load"]), "packages": tuple(fields["packages"])})


def perform(job: Job) -> dict[str, object]:
    """Measure; the answer has either `measured` and `versions`, or `error`."""
    try:
        measured = getattr(importlib.import_module(job.module), job.measure)(job.load)
    except Exception as error:  # noqa: BLE001  whatever a contender raises is its result
        return {"error": {"name": type(error).__name__, "message": str(error)}}
    if not isinstance(measured, Measured) or not measured.values:
        return {"error": {"name": "WrongResultError", "message": "the contender measured nothing"}}
    return {"measured": asdict(measured), "versions": versions(job.packages)}


def main() -> None:
    """Entry of the process."""
    job = Job.from_json(sys.argv[1])
    Path(job.answer).write_text(json.dumps(perform(job)))


if __name__ == "__main__":
    main()
