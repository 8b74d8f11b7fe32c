"""YAML from outside: checked for size, depth and aliases before a parser may recurse into it."""

from __future__ import annotations

from typing import Any

from planner.catalog.data import parse_yaml, yaml_trouble
from planner.errors import SourceError

MAX_CHARACTERS = 1 << 20
MAX_DEPTH = 32


def parse_foreign_yaml(text: str, name: str) -> Any:  # noqa: ANN401 - YAML holds anything; callers validate
    """Return the content of YAML ``text`` that a user or a stranger wrote; ``name`` is for the message.

    The C loader recurses per level and overflows the stack of the process on a few thousand brackets, and an alias
    can stand for itself or multiply without end; both are refused by walking the events first, which does neither.

    Raises:
        SourceError: longer than a million characters, deeper than 32 levels, with aliases, or no YAML.
    """
    import yaml  # noqa: PLC0415 - 20 ms that most commands can spare

    if len(text) > MAX_CHARACTERS:
        raise SourceError(f"{name}: {len(text)} characters; at most {MAX_CHARACTERS} are read")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            depth += _step(event, yaml)
            if depth > MAX_DEPTH:
                raise SourceError(f"{name}: nested deeper than {MAX_DEPTH} levels; no such file is that deep")
            if isinstance(event, yaml.AliasEvent):
                raise SourceError(f"{name}: aliases (*{str(event.anchor)[:40]}) are not read; write the value out")
    except (yaml.YAMLError, ValueError) as error:
        raise SourceError(f"{name}: {yaml_trouble(error)}") from error
    return parse_yaml(text, name)


def _step(event: object, yaml: Any) -> int:  # noqa: ANN401 - the module
    if isinstance(event, yaml.CollectionStartEvent):
        return 1
    return -1 if isinstance(event, yaml.CollectionEndEvent) else 0
