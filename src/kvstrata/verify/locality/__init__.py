"""router.locality: turn N+1 of a conversation lands on the replica whose caches have turn N.

Some conversations of a few turns go through the router, one request at a time, so that the counters of the engines tell
which replica served which turn. A router without affinity sends most follow-up turns where they must be computed again.
"""

from kvstrata.verify.locality.layer import checks

__all__ = ["checks"]
