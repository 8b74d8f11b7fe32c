"""The Hugging Face hub: the local cache first, its files by range where the network is allowed.

Cache layout (huggingface_hub 0.36): ``models--<org>--<name>/refs/<revision>`` holds a commit, whose files lie under
``snapshots/<commit>``. The ``huggingface_hub`` package, where installed, is asked for the login token only.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.sources.json_text import Fields, parse_object
from planner.sources.network import Network, fetch_small
from planner.sources.remote import RemoteBytes
from planner.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from planner.sources.bytes import ByteSource

DEFAULT_TAG = "Q4_K_M"  # what llama.cpp fetches unless told otherwise
DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_LISTING_BYTES = 16 * MIB
MAX_FILES = 20_000
MAX_SMALL_BYTES = 24 * MIB

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,120}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ /-]{0,255}")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubId:
    """A repository on the hub: ``org/name``, at a revision, with the tag of one GGUF file where one is wanted."""

    repository: str
    revision: str = "main"
    tag: str | None = None

    def __str__(self) -> str:
        return self.repository


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFolder:
    """A repository's files, read from the hub."""

    hub_id: HubId
    endpoint: str
    network: Network
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """The repository."""
        return self.hub_id.repository

    def source(self, name: str) -> ByteSource | None:
        """Return the file ``name`` as a range source, None where the repository has none."""
        return RemoteBytes(url=self._url(name), network=self.network) if name in self.files else None

    def small(self, name: str) -> bytes | None:
        """Return the small file ``name`` whole, None where the repository has none.

        Raises:
            SourceError: the hub refuses or fails.
        """
        if name not in self.files:
            return None
        return fetch_small(self.network, self._url(name), limit_bytes=MAX_SMALL_BYTES)

    def _url(self, name: str) -> str:
        revision = quote(self.hub_id.revision, safe="")
        return f"{self.endpoint}/{self.hub_id.repository}/resolve/{revision}/{quote(name)}"


def looks_like_hub_id(text: str) -> bool:
    """Whether ``text`` has the form ``org/name``, with an optional ``@revision`` and ``:tag``."""
    return _split(text) is not None


def parse_hub_id(text: str) -> HubId:
    """Return the hub id written as ``org/name``, ``org/name@revision`` or ``org/name:Q4_K_M``.

    Raises:
        SourceError: it is not one.
    """
    found = _split(text)
    if found is None:
        raise SourceError(
            f"{text[:100]!r} is not a hub id; write it like org/name, org/name@revision or org/name:Q4_K_M"
        )
    return found


def _split(text: str) -> HubId | None:
    rest, _, tag = text.partition(":")
    repository, _, revision = rest.partition("@")
    good = _ID.fullmatch(repository) and ".." not in text and "--" not in repository
    if good and (not revision or _REVISION.fullmatch(revision)) and (not tag or _REVISION.fullmatch(tag)):
        return HubId(repository=repository, revision=revision or "main", tag=tag or None)
    return None


def choose_gguf(files: Iterable[str], tag: str | None, where: str) -> str:
    """Return the model file of a GGUF repository: the one of ``tag``, else Q4_K_M, else the only one.

    Raises:
        SourceError: there is none, or several and no tag says which.
    """
    found = sorted(name for name in files if name.endswith(".gguf") and "mmproj" not in name.lower())
    firsts = [name for name in found if not _LATER_PART.search(name)]
    for wanted in (tag,) if tag else (DEFAULT_TAG,):
        word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted)}(?![A-Za-z0-9_])", re.IGNORECASE)
        fitting = [name for name in firsts if word.search(name)]
        if fitting:
            return fitting[0]
    if len(firsts) == 1 and tag is None:
        return firsts[0]
    listed = ", ".join(firsts[:8]) or "none"
    which = f"no .gguf file of {tag}" if tag else "no single .gguf file"
    raise SourceError(f"{where}: has {which}; there are: {listed}")


def choose_projector(files: Iterable[str]) -> str | None:
    """Return the projector file of a repository, f16 before bf16 before the rest; None where there is none."""
    found = sorted(name for name in files if name.endswith(".gguf") and "mmproj" in name.lower())
    order = [re.compile(rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])", re.IGNORECASE) for word in ("f16", "bf16")]
    return next((name for word in order for name in found if word.search(name)), found[0] if found else None)


def cached_folder(hub_id: HubId, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the snapshot of the repository in the local cache, None where it is not there."""
    folder = cache_directory(environment) / f"models--{hub_id.repository.replace('/', '--')}"
    commit = hub_id.revision
    if not _COMMIT.fullmatch(commit):
        commit = _ref(folder / "refs" / hub_id.revision)
    snapshot = folder / "snapshots" / commit
    return snapshot if commit and _is_folder(snapshot) else None


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the hub's cache: ``HF_HUB_CACHE``, else ``hub`` under ``HF_HOME``, else ``~/.cache/huggingface/hub``."""
    chosen = environment.get("HF_HUB_CACHE") or environment.get("HUGGINGFACE_HUB_CACHE")
    return Path(chosen).expanduser() if chosen else _home(environment) / "hub"


def offline_asked(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network."""
    return environment.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def login_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the login token: ``HF_TOKEN``, the file a login left, or what ``huggingface_hub`` knows."""
    if environment.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
        return environment.get("HF_TOKEN") or None
    path = Path(environment.get("HF_TOKEN_PATH") or _home(environment) / "token").expanduser()
    found = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN") or _text(path) or _library_token()
    found = (found or "").strip()
    return found if found and found.isascii() and found.isprintable() else None


def endpoint(environment: Mapping[str, str] = os.environ) -> str:
    """Return the hub's address: ``HF_ENDPOINT`` or the public one."""
    return environment.get("HF_ENDPOINT", "").strip().rstrip("/") or DEFAULT_ENDPOINT


def open_remote(hub_id: HubId, network: Network, environment: Mapping[str, str] = os.environ) -> RemoteFolder:
    """Return the repository's files as the hub lists them (one request).

    Raises:
        SourceError: the network is not allowed, the repository does not exist or is gated, or the list is absurd.
    """
    base = endpoint(environment)
    with_token = Network(
        allowed=network.allowed and not offline_asked(environment),
        timeout_s=network.timeout_s,
        token=login_token(environment),
        token_host=urlsplit(base).netloc,
        reason=network.reason if not offline_asked(environment) else "HF_HUB_OFFLINE forbids it",
    )
    revision = quote(hub_id.revision, safe="")
    url = f"{base}/api/models/{hub_id.repository}/revision/{revision}"
    data = fetch_small(with_token, url, limit_bytes=MAX_LISTING_BYTES)
    if data is None:
        raise SourceError(f"{url}: HTTP 404: the hub has no {hub_id} at revision {hub_id.revision}")
    files = _listed(Fields(values=parse_object(data, url), where=url))
    return RemoteFolder(hub_id=hub_id, endpoint=base, network=with_token, files=files)


def _listed(listing: Fields) -> tuple[str, ...]:
    """Return the plain file names of a listing; names that could lead elsewhere are left out."""
    names = (entry.get("rfilename") for entry in listing.items("siblings")[:MAX_FILES] if isinstance(entry, dict))
    return tuple(name for name in names if isinstance(name, str) and _FILE.fullmatch(name) and ".." not in name)


def _home(environment: Mapping[str, str]) -> Path:
    chosen = environment.get("HF_HOME")
    if chosen:
        return Path(chosen).expanduser()
    cache = environment.get("XDG_CACHE_HOME")
    home = environment.get("HOME") or environment.get("USERPROFILE") or "~"
    return (Path(cache) if cache else Path(home) / ".cache").expanduser() / "huggingface"


def _ref(path: Path) -> str:
    text = _text(path) or ""
    return text if _COMMIT.fullmatch(text) else ""


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")[:4096].strip() if path.is_file() else None
    except (OSError, ValueError):
        return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _library_token() -> str | None:
    """Return the token of the ``huggingface_hub`` package, an extra that is slow to import."""
    try:
        found = importlib.import_module("huggingface_hub").get_token()
    except (ImportError, AttributeError):
        return None
    return found if isinstance(found, str) else None
