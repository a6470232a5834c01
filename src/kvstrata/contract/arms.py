"""What is compared: a profile's router with a policy and its settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.engine_options import ROUTER_POLICY_FLAGS

type Profile = Literal["router", "dynamo"]
ROUTER: Final = "router"
DYNAMO: Final = "dynamo"

# Flags with a time that matters under load.
_SECONDS: Final = ("--kv-aware-session-affinity-ttl-secs",)


@dataclass(frozen=True)
class Arm:
    """One way to route."""

    name: str
    profile: Profile
    policy: str
    """vllm-router's --policy, or dynamo.frontend's --router-mode."""
    flags: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    """Parameters of Dynamo's default policy, which it takes from a file (--router-policy-config)."""
    session: bool = False
    """Whether its clients tell their conversation (X-Session-ID)."""
    judged: bool = True
    """Whether the contract is claimed for it; the others are what it is compared with."""

    @property
    def events(self) -> bool:
        """Whether it listens to KV events."""
        return self.policy in ("kv_aware", "kv")

    def slowed(self, times: float) -> Arm:
        """Return the same for engines and clients whose clock goes so many times slower."""
        flags = list(self.flags)
        for index in [index for index, word in enumerate(flags[:-1]) if word in _SECONDS]:
            flags[index + 1] = f"{float(flags[index + 1]) * times:.0f}"
        return replace(self, flags=tuple(flags))


def _role_flags(policy: str) -> tuple[str, ...]:
    return tuple(str(word) for flag in ROUTER_POLICY_FLAGS[policy].items() for word in flag)


# roles/dynamo: dynamo_weights. What the roles deploy is measured: tests/contract/test_contract_arms.py compares.
DYNAMO_SETTINGS = {"prefill_load_scale": 10.0, "overlap_score_credit": 2.0}

_ARMS = (
    Arm("kv_aware", ROUTER, "kv_aware", _role_flags("kv_aware")),
    Arm("kv_aware-session", ROUTER, "kv_aware", _role_flags("kv_aware"), session=True),
    Arm("cache_aware", ROUTER, "cache_aware", _role_flags("cache_aware")),
    Arm("round_robin", ROUTER, "round_robin", judged=False),
    Arm("random", ROUTER, "random", judged=False),
    Arm("power_of_two", ROUTER, "power_of_two", judged=False),
    Arm("dynamo-kv", DYNAMO, "kv", settings=DYNAMO_SETTINGS),
    Arm("dynamo-round-robin", DYNAMO, "round-robin", judged=False),
    Arm("dynamo-random", DYNAMO, "random", judged=False),
)
ARMS = {arm.name: arm for arm in _ARMS}
DEFAULT = ("kv_aware", "cache_aware", "round_robin", "random", "dynamo-kv", "dynamo-round-robin", "dynamo-random")


def chosen(names: str | None, variants: Sequence[str]) -> tuple[Arm, ...]:
    """Return the arms named on the command line, and variants such as `warm=kv_aware --router-temperature 0.3`.

    Words of a variant of a Dynamo arm such as `router_temperature=0.3` are parameters of its policy.

    Raises:
        BenchError: an unknown arm, a name twice, or nothing.
    """
    words = DEFAULT if names is None else [word.strip() for word in names.split(",") if word.strip()]
    found = [_known(word) for word in words] + [_variant(text) for text in variants]
    twice = sorted({arm.name for arm in found if [other.name for other in found].count(arm.name) > 1})
    if not found or twice:
        raise BenchError(f"--arms is {names!r}; allowed: one or more of {', '.join(ARMS)}, each name once")
    return tuple(found)


def _known(name: str) -> Arm:
    if name not in ARMS:
        raise BenchError(f"--arms names {name!r}; allowed: {', '.join(ARMS)}")
    return ARMS[name]


def _variant(text: str) -> Arm:
    name, separator, rest = text.partition("=")
    words = shlex.split(rest)
    if not separator or not name or not words:
        raise BenchError(f"--variant {text!r}; allowed: NAME=ARM FLAG...")
    base, settings, flags = _known(words[0]), dict[str, float](), []
    for word in words[1:]:
        parameter, is_setting, value = word.partition("=")
        if base.profile == DYNAMO and is_setting and not word.startswith("-"):
            try:
                settings[parameter] = float(value)
            except ValueError:
                raise BenchError(f"--variant {text!r}: {parameter} is {value!r}; allowed: a number") from None
        else:
            flags.append(word)
    # A variant says all of its flags itself: what the defaults are must not matter to it.
    return Arm(name, base.profile, base.policy, tuple(flags), settings, session=base.session)
