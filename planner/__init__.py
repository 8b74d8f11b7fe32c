"""Plan the memory of a vision-language model before you download it.

``planner.estimate`` and ``planner.recommend`` take a request mapping and return an answer mapping, the schema of
``vlplan batch``. Both are loaded when they are first used: importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.api import estimate, recommend
    from planner.errors import VlplanError

__all__ = ["VlplanError", "estimate", "recommend"]
_HOMES = {"estimate": "planner.api", "recommend": "planner.api", "VlplanError": "planner.errors"}


def __getattr__(name: str) -> object:
    """Return a public name from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'planner' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not needed to import the package

    return getattr(import_module(_HOMES[name]), name)
