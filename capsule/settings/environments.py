"""What can be configured of an environment: its interpreter, its sandbox and its pool."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from capsule.settings.base import AbsolutePath, Bytes, Config, Count, CountFrom1, Seconds, option

Sandbox = Literal["none", "landlock", "namespaces"]
"""What keeps code from what is not its session's, from the weakest to the strongest."""

ControlGroups = Literal["auto", "required", "off"]
"""Whether the system counts what a session has together: where it can, else the environment is refused, or never."""

StartMethod = Literal["fork", "spawn"]
"""How workers begin: as forks of a process that has imported the environment's modules, or as interpreters that import
them by themselves. The names are those of `multiprocessing`."""


class BreakerConfig(Config):
    """When the pool of an environment stops making workers: `failures` within `window` seconds open its breaker.

    The bound of the pauses doubles from `pause` up to `longest_pause`.
    """

    failures: CountFrom1 = option(
        5, "So many failures to make a worker, within `window`, open the breaker", reload=True
    )
    window: Seconds = option(30.0, "The time within which failures are counted", reload=True)
    pause: Seconds = option(
        0.5, "The longest pause after the first failure; doubles with each further one in a row", reload=True
    )
    longest_pause: Annotated[Seconds, Field(validate_default=True)] = option(
        30.0, "The longest pause of all; not less than `pause`", reload=True
    )

    @field_validator("longest_pause")
    @classmethod
    def _not_shorter_than_pause(cls, value: float, info: ValidationInfo) -> float:
        """Else `pause` would be accepted and mean nothing."""
        pause = info.data.get("pause", 0.0)
        if value < pause:
            raise PydanticKnownError("greater_than_equal", {"ge": pause})
        return value


class EnvironmentConfig(Config):
    """What the sessions of one environment share: the interpreter, what it imports before the first session, its pool.

    `warmup` is code that each worker runs before it has a session.
    """

    python: str | None = option(
        None,
        "The interpreter, which must have Capsule installed; without it, the node's own",
        example="/srv/science/bin/python",
    )
    preload: tuple[str, ...] = option(
        (), "Modules that are imported before a session begins: once for all, or by each worker, as `start_method` says"
    )
    start_method: StartMethod = option(
        "fork",
        "How workers begin: `fork`, of a process that has imported `preload`; or `spawn`, each an interpreter "
        "that imports it itself, for modules that [do not survive a fork]"
        "(../how-to/add-an-environment.md#modules-that-do-not-survive-a-fork)",
        example="spawn",
    )
    env: dict[str, str] = option({}, "Environment variables that the interpreter starts with")
    path: tuple[str, ...] = option((), "Goes in front of `sys.path`, for the preload too")
    sandbox: Sandbox = option(
        "none",
        "What keeps the code of a session to its own process and files: `none`, `landlock` or `namespaces`, see "
        "[What the sandbox does and does not do](../explanation/sandbox.md); what this machine cannot give is "
        "refused: `sandbox_unavailable`",
        example="namespaces",
    )
    scratch_bytes: Bytes = option(
        2**30, "In a sandbox: what the files of a session may hold, at the level `landlock` each of them"
    )
    readable: tuple[AbsolutePath, ...] = option(
        (), "In a sandbox: what the code may read beside the interpreter, its packages and the system's libraries"
    )
    uid: Annotated[int, Field(ge=0, le=2**32 - 2)] | None = option(
        None,
        "In a sandbox of a node that runs as root: the user that the code runs as; without it, each session has one of "
        "its own",
        example=65_534,
    )
    cgroups: ControlGroups = option(
        "auto",
        "In a sandbox: whether the system counts what a session has, memory, processes and threads, in control groups: "
        "where they can be had (`auto`), or else it is refused with `sandbox_unavailable` (`required`), or never "
        "(`off`); see [Bound what sessions take](../how-to/sandbox.md#bound-what-sessions-take)",
        example="required",
    )
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = option(
        None,
        "In a sandbox: how much of the processors a session may take, 1.5 is one and a half of them; it needs control "
        "groups, else `sandbox_unavailable`; without it, as much as there is",
        example=1.5,
    )
    warmup: str = option("", "Code that each worker runs before it has a session; if it raises, `environment_failed`")
    min_idle: Count = option(1, "Workers kept ready for later sessions", reload=True)
    max_sessions: CountFrom1 = option(1000, "Workers in all: in use, ready, being made or ended", reload=True)
    max_starting: CountFrom1 = option(4, "Workers made at once", reload=True)
    idle_ttl: Seconds = option(
        60.0, "After this time a worker beyond `min_idle` that nobody wanted is ended", reload=True
    )
    max_age: Seconds | None = option(
        None, "After this time any ready worker is replaced; without it, never", reload=True, example=3600.0
    )
    acquire_timeout: Seconds | None = option(
        None,
        "How long a session waits for a worker, else `pool_timeout`; without it, for ever",
        reload=True,
        example=30.0,
    )
    create_timeout: Seconds = option(
        60.0, "Until a worker is made, imports of the environment and `warmup` included", reload=True
    )
    idle_bytes: Bytes | None = option(
        None, "Own memory of all ready workers together; without it, no bound", reload=True, example=2**30
    )
    worker_bytes: Bytes | None = option(
        None,
        "Own memory that a worker may have when it has just been made, else it counts as a failure; without it, any",
        reload=True,
        example=2**28,
    )
    breaker: BreakerConfig = option(BreakerConfig(), "When no workers are made any more")
