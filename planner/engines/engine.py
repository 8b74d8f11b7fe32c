"""What an engine is to the rest of the program: a value made of functions, with its data already inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from planner.budget import Budget
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Model
from planner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """What to paste: a command line and, where the engine has one, a configuration text."""

    command: str
    config: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeak:
    """Where a device's compute memory is fullest: operation, layer (-1: none), and what lies there (name, bytes)."""

    device: str
    operation: str
    layer: int
    live: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Whether an engine version loads a model at all, with reason, source and what else would."""

    verdict: str  # supported | unsupported | remote_code | unknown
    reason: str = ""
    source: str = ""
    alternatives: tuple[str, ...] = ()
    since: str | None = None  # first release that loads it, as far as known
    until: str | None = None  # last release that loads it, None while it still does
    checked: str = ""  # newest release examined and the day it was looked at
    vision: bool = True  # False: it loads as a text model only
    backend: str = ""  # which of an engine's own backends takes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine of one version.

    ``settings`` is its frozen settings class (the engine's own words). ``loads`` gives the verdict before any
    arithmetic, ``budget`` the bytes, ``emit`` the command for exactly those settings. ``peaks``, where the engine's
    graph is simulated, says which operation makes each device's compute peak; ``adapt`` fills in settings that the
    engine itself would choose badly.
    """

    name: str
    version: str
    settings: type
    loads: Callable[[Model], Support]
    budget: Callable[[Model, Workload, Machine, Any], Budget]
    emit: Callable[[Model, Workload, Machine, Any], Emitted]
    peaks: Callable[[Model, Workload, Machine, Any], tuple[DevicePeak, ...]] | None = None
    adapt: Callable[[Model, Workload, Machine, Any], Any] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
