"""Where users keep profiles of their own: ``VLPLAN_PROFILES``, then the configuration directory of XDG.

A user's profile counts before one of the catalogue with the same name, and the replacement is said. Directories of the
command's ``--profiles DIR`` come before both places.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.catalog.foreign import parse_foreign_yaml
from planner.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "VLPLAN_PROFILES"
NAMED: ContextVar[tuple[str, ...]] = ContextVar("vlplan_profiles", default=())
MAX_FILES = 2000
MAX_BYTES = 1 << 20


def profile_directories(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the directories to look in: those of the command, those of ``VLPLAN_PROFILES``, then the user's own.

    A directory that was named must exist; the user's own (``~/.config/vlplan/profiles``) need not.

    Raises:
        SourceError: a named directory is not there.
    """
    parts = (*NAMED.get(), *environment.get(VARIABLE, "").split(os.pathsep))
    named = [Path(part).expanduser() for part in parts if part.strip()]
    for directory in named:
        if not directory.is_dir():
            raise SourceError(f"{directory}: no such directory of profiles (--profiles, {VARIABLE})")
    home = environment.get("HOME") or environment.get("USERPROFILE") or "~"
    config = environment.get("XDG_CONFIG_HOME") or Path(home).expanduser() / ".config"
    own = Path(config) / "vlplan" / "profiles"
    return (*named, own) if own.is_dir() else tuple(named)


def user_profiles(environment: Mapping[str, str] = os.environ) -> Mapping[str, Path]:
    """Return the users' profiles by name (that of the file); of two with one name the first directory's.

    Raises:
        SourceError: a directory cannot be listed, or holds an absurd number of files.
    """
    return _listed(profile_directories(environment))


def read_user_profile(path: Path) -> Any:  # noqa: ANN401 - YAML holds anything; callers validate
    """Return the content of one profile.

    Raises:
        SourceError: it is unreadable, too large, or no plain YAML.
    """
    return parse_foreign_yaml(profile_text(path), str(path))


def profile_text(path: Path) -> str:
    """Return the text of one profile.

    Raises:
        SourceError: it is unreadable or too large.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{path}: more than {MAX_BYTES} bytes; a profile is a page of YAML")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def replacements(names: Mapping[str, Path], catalogue: frozenset[str], own: str) -> tuple[str, ...]:
    """Return what to say about the user's profile ``own`` where others have its name too."""
    said = []
    if own in catalogue:
        said.append(f"{names[own]} replaces the catalogue's profile {own}")
    others = [path for path in _all_paths(own) if path != names[own]]
    said += [f"{names[own]} comes before {path}, which has the same name" for path in others]
    return tuple(said)


def _all_paths(name: str) -> list[Path]:
    return [path for folder in profile_directories() if (path := folder / f"{name}.yaml").is_file()]


@lru_cache(maxsize=8)
def _listed(directories: tuple[Path, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for directory in directories:
        try:
            entries = sorted(entry for entry in directory.iterdir() if entry.suffix == ".yaml" and entry.is_file())
        except OSError as error:
            raise SourceError(f"{directory}: cannot be listed: {error.strerror}") from error
        if len(entries) > MAX_FILES:
            raise SourceError(f"{directory}: {len(entries)} profiles; refused as too many")
        for entry in entries:
            found.setdefault(entry.stem, entry)
    return found
