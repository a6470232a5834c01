"""router.locality: turn N+1 of a conversation lands on the replica whose caches have turn N.

Some conversations of a few turns go through the router, the same turn of all of them at the same time: a router that
only looks for the least busy replica must spread them anew each time, or it could not be told from one that follows.
The counters of all engines, read before and after, tell which replica served which turn.
"""

from kvstrata.verify.locality.layer import checks

__all__ = ["checks"]
