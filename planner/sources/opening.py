"""Any way to name a model, one function: a file, a folder, an Ollama tag, a hub id, an address, or a profile's name.

Nothing goes to the network unless the source is an address or ``online`` is set; ``offline`` forbids it in any case.
What a profile does not need, such as the readers of files and the network, is imported when a source asks for it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import SourceError, UsageError, VlplanError
from planner.sources.access import ACCESS, Access
from planner.sources.image_rules import with_mtmd_rule
from planner.sources.wanted import Wanted

if TYPE_CHECKING:
    from planner.model import Model

_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_PAGES = (  # addresses that people copy from a browser, and what the page shows
    ("hf:", re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?", re.IGNORECASE)),
    (
        "ollama:",
        re.compile(r"https?://(?:www\.)?ollama\.com/(?:library/)?([\w.-]+(?:/[\w.-]+)?(?::[\w.-]+)?)/?", re.IGNORECASE),
    ),
)
_ELSEWHERE = ("ollama:", "hf:")


def open_model(  # noqa: PLR0913 - the ways to narrow down a source
    source: str,
    *,
    engine: str = "llama.cpp",
    quantization: str | None = None,
    projector: str | None = None,
    online: bool | None = None,
    offline: bool | None = None,
    timeout_s: float | None = None,
) -> Model:
    """Return the model that ``source`` names, as ``engine`` would load it.

    Args:
        source: an existing .gguf file (any part of a split one), model folder or YAML file of measured points;
            ``ollama:name:tag``; ``hf:org/name`` or ``org/name`` (``@revision``, ``:Q4_K_M`` for a GGUF repository); an
            http(s) address of a .gguf file; or the name of a profile.
        engine: llama.cpp and ollama read GGUF files: a profile or folder gets the tensors such a file would have.
        quantization: the file type (llama.cpp, Ollama) or scheme that a profile or folder is to be planned in.
        projector: a projector file, or ``none`` for text only; None: one found beside the model.
        online: allow the hub and the registry for sources that are not here; None: as the command's options say.
        offline: forbid the network even for addresses; None: as the command's options say.
        timeout_s: of each request; None: as the command's options say.

    Raises:
        SourceError: it is not there, damaged, hostile, or needs a network that is not allowed.
        UsageError: no such name.
    """
    wanted = Wanted(
        engine=engine,
        quantization=quantization,
        projector=projector,
        access=_access(source, online=online, offline=offline, timeout_s=timeout_s),
    )
    model = with_mtmd_rule(_opened(source.strip(), wanted))
    return replace(model, vision=None, projector_file_bytes=None) if wanted.text_only else model


def _access(source: str, *, online: bool | None, offline: bool | None, timeout_s: float | None) -> Access:
    """Return what the source may ask of the network; an address asks for it by itself."""
    usual = ACCESS.get()
    online = usual.online if online is None else online
    return Access(
        online=online or _ADDRESS.match(source) is not None,
        offline=usual.offline if offline is None else offline,
        timeout_s=timeout_s or usual.timeout_s,
    )


def _shown(address: str) -> tuple[str, str] | None:
    """Return the prefix and the name of the model whose page ``address`` is, None for any other address."""
    for prefix, page in _PAGES:
        found = page.fullmatch(address)
        if found and not found[1].lower().endswith(".gguf"):
            return prefix, found[1]
    return None


def _opened(source: str, wanted: Wanted) -> Model:
    page = _shown(source)
    if page is not None:
        try:
            return _by_name(page[1], replace(wanted, access=replace(wanted.access, online=False)))
        except VlplanError:
            source = "".join(page)
    if not source or "\x00" in source or len(source) > 4096:
        raise UsageError("a model is a file, a folder, ollama:name:tag, hf:org/name, an address or a profile's name")
    if not (_ADDRESS.match(source) or source.startswith(_ELSEWHERE) or _exists(Path(source).expanduser())):
        return _by_name(source, wanted)
    from planner.sources.reading import read_source  # noqa: PLC0415 - all readers are behind it

    return read_source(source, wanted)


def _by_name(source: str, wanted: Wanted) -> Model:
    """Return a profile's model, or that of a hub id that no profile has."""
    from planner.catalog.models import load_model, with_file_type  # noqa: PLC0415 - YAML is behind it

    if source.endswith(".gguf") or source.startswith((".", "/", "~")):
        known = with_file_type(Path(source.replace("\\", "/")).name.removesuffix(".gguf"))
        hint = f"; the catalogue knows it: {known}" if known else ""
        raise SourceError(f"{source}: no such file or folder{hint}")
    try:
        return _profile(load_model(source, wanted.quantization, "gguf" if wanted.gguf else "hf"), wanted)
    except UsageError:
        from planner.sources.hub import looks_like_hub_id  # noqa: PLC0415 - only where there is no profile

        if not looks_like_hub_id(source):
            raise
    return _opened(f"hf:{source}", wanted)


def _profile(model: Model, wanted: Wanted) -> Model:
    """Return the profile's model with the projector file that was named, if any."""
    if wanted.projector is None or wanted.text_only:
        return model
    from planner.sources.reading import with_named_projector  # noqa: PLC0415 - all readers are behind it

    return with_named_projector(model, wanted)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
