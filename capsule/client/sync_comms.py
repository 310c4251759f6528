"""What a synchronous session says and hears on comms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.client.sync_checkpoints import Checkpoints

if TYPE_CHECKING:
    from capsule.client.execution import OnEvent
    from capsule.client.inputs import OnInput
    from capsule.client.results import Result
    from capsule.comms import CommRequest


class Comms(Checkpoints):
    """Comms are Jupyter's channels between objects of the code, such as widgets, and those of a front end."""

    def send_comm(
        self,
        request: CommRequest,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
    ) -> Result:
        """Say something on a comm, and wait until the code has acted on it: an execution like any other.

        Its events and its result have what that printed, showed and said on comms. Raises as `run` does. The error of a
        comm or target that the code does not have has the code `comm_unknown`.
        """
        return self._portal.call(self._inner.send_comm, request, timeout=timeout, on_event=on_event, on_input=on_input)

    def comms(self, target: str | None = None, *, timeout: float | None = None) -> dict[str, str]:
        """The comms that are open, or only those of a target: the target of each, by its id."""
        return self._portal.call(self._inner.comms, target, timeout=timeout)
