"""Let engines notice that LMCache was restarted, however quickly.

An engine's worker registers its KV memory once, and again when LMCache answers its pings after it did not. LMCache
0.5.6 answers every ping with true (v1/multiprocess/modules/management.py), also those of workers that it does not know.
When a restart is over before the next ping, the worker therefore never registers again: each of its requests waits for
a time-out, and nothing is stored, until the engine itself is restarted. Seen in the lab: `systemctl restart lmcache`,
and systemd's own restart after a crash.

Here the first ping of a worker that is not registered is answered with false. The worker then takes LMCache for down,
and at its next ping, which is answered with true, registers again.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)
# Where the modules that keep registrations name them in their reports.
_REGISTERED = ("registered_gpu_ids", "registered_non_cuda_instance_ids")


def install(management: Any) -> None:
    """Have the class (LMCache's ManagementModule) ask strangers to register; AttributeError where it has no ping."""
    original: Callable[[Any, Any], bool] = management.ping
    asked: set[Any] = set()

    # What marks the method as a handler lies in its attributes, which this keeps.
    @functools.wraps(original)
    def ping(self: Any, instance_id: Any) -> bool:
        answer = original(self, instance_id)
        # The scheduler's pings have no number, and nothing to register.
        if instance_id is None or is_registered(self, instance_id) or instance_id in asked:
            # It is after this answer that a worker which heard false registers.
            asked.discard(instance_id)
            return answer
        asked.add(instance_id)
        logger.warning("worker %s is not registered here: asking it to register", instance_id)
        return False

    management.ping = ping


def is_registered(management: Any, instance_id: Any) -> bool:
    """Whether any of the modules that keep registrations has this worker's."""
    reports = (target.report_status() for target in management._liveness_targets if hasattr(target, "report_status"))
    return any(instance_id in report.get(name, ()) for report in reports for name in _REGISTERED)
