"""Which options a release of an engine has: data, and the line that refuses an option it does not have."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from planner.engines.versions import parse_version
from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option's word on the command line, with the first and last release that have it."""

    flag: str
    since: str = "0"
    until: str | None = None

    def in_release(self, version: str) -> bool:
        """Whether the release has it."""
        at = parse_version(version)
        return not at < parse_version(self.since) and (self.until is None or at.within(parse_version(self.until)))


Options = Mapping[str, Option]


def options_table(data: Mapping[str, Any]) -> dict[str, Option]:
    """Return the options that a file of ``profiles/engines/options`` lists, by their name with underscores."""
    prefix = data.get("flag_prefix", "--")
    return {name: _option(name, prefix, row or {}) for name, row in data["options"].items()}


def _option(name: str, prefix: str, row: Mapping[str, Any]) -> Option:
    return Option(
        flag=row.get("flag") or prefix + name.replace("_", "-"), since=row.get("since", "0"), until=row.get("until")
    )


def missing_options(options: Options, given: Mapping[str, object], title: str, version: str) -> tuple[str, ...]:
    """Return a line for each option given that the release does not have."""
    found = []
    for name in given:
        option = options.get(name)
        if option is not None and not option.in_release(version):
            until = f", until {option.until}" if option.until else ""
            found.append(f"{title} {version} has no option {name} (since {option.since}{until})")
    return tuple(found)


def arguments(options: Options, given: Mapping[str, object]) -> list[str]:
    """Return command-line words for ``given``: a flag alone for True, ``--no-…`` for False, JSON for mappings."""
    words: list[str] = []
    for name, value in given.items():
        flag = options[name].flag
        if value is True:
            words.append(flag)
        elif value is False:
            words.append("--no-" + flag.removeprefix("--"))
        else:
            words += [flag, _word(value)]
    return words


def _word(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def command_line(words: list[str]) -> str:
    """Return the words as one shell line, quoted where needed."""
    return shlex.join(words)
