"""What a command allows its sources: the network, and how long a request may take. Set once, where options are read."""

from __future__ import annotations

from contextvars import ContextVar

from planner.frozen import dataclass

DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """``online`` allows the hub and registries, ``offline`` forbids even addresses; the default is neither."""

    online: bool = False
    offline: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S


ACCESS: ContextVar[Access] = ContextVar("vlplan_access", default=Access())  # noqa: B039 - frozen
