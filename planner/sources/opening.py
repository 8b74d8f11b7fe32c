"""Any way to name a model, one function: a file, a folder, an Ollama tag, a hub id, an address, or a profile's name.

Nothing goes to the network unless the source is an address or ``online`` is set; ``offline`` forbids it in any case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import SourceError, UsageError
from planner.sources import hub, ollama
from planner.sources.access import ACCESS
from planner.sources.gguf.file import part_names, read_gguf, read_parts
from planner.sources.gguf.model import model_from_files
from planner.sources.image_rules import with_mtmd_rule
from planner.sources.network import Network
from planner.sources.projectors import embedded_projector, projector_beside
from planner.sources.remote import RemoteBytes

if TYPE_CHECKING:
    from planner.model import Model
    from planner.sources.bytes import ByteSource
    from planner.sources.gguf.file import GgufFile
    from planner.sources.hf import Folder

GGUF_ENGINES = frozenset({"llama.cpp", "ollama"})
NO_PROJECTOR = "none"
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What was asked for beside the source."""

    engine: str
    quantization: str | None
    projector: str | None
    network: Network

    @property
    def gguf(self) -> bool:
        """Whether the engine reads GGUF files."""
        return self.engine in GGUF_ENGINES

    @property
    def text_only(self) -> bool:
        """Whether the vision part is to be left out."""
        return self.projector == NO_PROJECTOR


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
    wanted = _Wanted(
        engine=engine,
        quantization=quantization,
        projector=projector,
        network=_network(source, online=online, offline=offline, timeout_s=timeout_s),
    )
    model = with_mtmd_rule(_opened(source.strip(), wanted))
    return replace(model, vision=None, projector_file_bytes=None) if wanted.text_only else model


def _network(source: str, *, online: bool | None, offline: bool | None, timeout_s: float | None) -> Network:
    usual = ACCESS.get()
    online = usual.online if online is None else online
    offline = usual.offline if offline is None else offline
    allowed = (online or _ADDRESS.match(source) is not None) and not offline
    reason = "--offline forbids it" if offline else "add --online to allow it"
    return Network(allowed=allowed, timeout_s=timeout_s or usual.timeout_s, reason=reason)


def _opened(source: str, wanted: _Wanted) -> Model:
    if not source or "\x00" in source or len(source) > 4096:
        raise UsageError("a model is a file, a folder, ollama:name:tag, hf:org/name, an address or a profile's name")
    if _ADDRESS.match(source):
        return _from_address(source, wanted)
    if source.startswith("ollama:"):
        return _from_ollama(source.removeprefix("ollama:"), wanted)
    if source.startswith("hf:"):
        return _from_hub(source.removeprefix("hf:"), wanted)
    path = Path(source).expanduser()
    if _exists(path):
        return _from_path(path, wanted)
    return _by_name(source, wanted)


def _from_path(path: Path, wanted: _Wanted) -> Model:
    if path.is_dir():
        return _from_folder(_local(path), wanted)
    if path.name.endswith(".safetensors") or path.name in {"config.json", "model.safetensors.index.json"}:
        return _from_folder(_local(path.parent), wanted)
    if path.suffix.lower() in {".yaml", ".yml"}:
        from planner.sources.measured import read_measured  # noqa: PLC0415 - only for folders

        return read_measured(path)
    file = read_gguf(path)
    model, beside = _with_projector(file, path, wanted)
    return replace(model, projector_source=str(beside)) if beside else model


def _with_projector(file: GgufFile, path: Path, wanted: _Wanted) -> tuple[Model, Path | None]:
    """Return the model with the projector that was named, is embedded, or lies beside it, and that one's path."""
    if wanted.text_only:
        return model_from_files(embedded_projector(file)[0]), None
    if wanted.projector is not None:
        named = Path(wanted.projector).expanduser()
        return model_from_files(embedded_projector(file)[0], read_gguf(named)), named
    language, inside = embedded_projector(file)
    if inside is not None:
        return model_from_files(language, inside), None
    found = projector_beside(file, path)
    if found is None:
        return model_from_files(file), None
    model = model_from_files(file, read_gguf(found))
    return replace(model, notes=(*model.notes, f"projector found beside the model: {found.name}")), found


def _from_address(url: str, wanted: _Wanted) -> Model:
    projector = None
    if wanted.projector and not wanted.text_only:
        projector = _projector_file(wanted.projector, wanted)
    file = _remote_gguf(url, wanted.network)
    language, inside = embedded_projector(file)
    return model_from_files(language, projector or inside)


def _projector_file(source: str, wanted: _Wanted) -> GgufFile:
    return _remote_gguf(source, wanted.network) if _ADDRESS.match(source) else read_gguf(Path(source).expanduser())


def _remote_gguf(url: str, network: Network) -> GgufFile:
    def part(name: str) -> ByteSource:
        return RemoteBytes(url=name, network=network)

    return read_parts(part_names(url), part)


def _from_ollama(text: str, wanted: _Wanted) -> Model:
    tag = ollama.parse_tag(text)
    found = ollama.open_stored(tag, ollama.store_directories())
    if found is None:
        found = ollama.open_registry(tag, _with_reason(wanted.network, f"{tag} is in no local Ollama store"))
    language, inside = embedded_projector(_one_file(found.model))
    separate = _one_file(found.projector) if found.projector is not None and not wanted.text_only else None
    if wanted.projector is not None and not wanted.text_only:
        separate = _projector_file(wanted.projector, wanted)
    model = model_from_files(language, separate or inside, str(tag))
    said = tuple(f"Modelfile: {key} {value}" for key, value in found.parameters.items() if key.startswith("num_"))
    return replace(model, notes=(*model.notes, *said))


def _one_file(source: ByteSource) -> GgufFile:
    return read_parts((source.name,), lambda _: source)


def _from_hub(text: str, wanted: _Wanted) -> Model:
    hub_id = hub.parse_hub_id(text)
    cached = hub.cached_folder(hub_id)
    folder: Folder
    if cached is not None:
        folder = _local(cached)
    else:
        folder = hub.open_remote(hub_id, _with_reason(wanted.network, f"{hub_id} is not in the local cache"))
    if "config.json" in folder.files and hub_id.tag is None:
        return _from_folder(folder, wanted, hub_id.repository)
    return _from_gguf_repository(folder, hub_id, wanted)


def _from_gguf_repository(folder: Folder, hub_id: hub.HubId, wanted: _Wanted) -> Model:
    name = hub.choose_gguf(folder.files, hub_id.tag, str(hub_id))
    file = read_parts(part_names(name), lambda part: _present(folder, part))
    beside = None if wanted.text_only else hub.choose_projector(folder.files)
    projector = _one_file(_present(folder, beside)) if beside else None
    if wanted.projector is not None and not wanted.text_only:
        projector = _projector_file(wanted.projector, wanted)
    model = model_from_files(file, projector)
    chosen = (f"file {name}", *((f"projector {beside}",) if beside else ()))
    return replace(model, hf_id=hub_id.repository, notes=(*model.notes, *chosen))


def _present(folder: Folder, name: str) -> ByteSource:
    found = folder.source(name)
    if found is None:
        raise SourceError(f"{folder.name}: has no {name}; the download is incomplete")
    return found


def _from_folder(folder: Folder, wanted: _Wanted, hf_id: str | None = None) -> Model:
    from planner.sources.hf import model_from_folder  # noqa: PLC0415 - only for folders

    ggufs = [name for name in folder.files if name.endswith(".gguf") and "mmproj" not in name.lower()]
    if "config.json" not in folder.files and ggufs:
        first = hub.choose_gguf(folder.files, None, folder.name)
        return _from_path(Path(folder.name) / first, wanted)
    model = model_from_folder(folder, hf_id=hf_id)
    return _as_gguf(model, wanted.quantization) if wanted.gguf else _in_scheme(model, wanted.quantization)


def _as_gguf(model: Model, quantization: str | None) -> Model:
    """Return the model of a folder as a converted file of ``quantization`` would store it."""
    from planner.catalog.models import DEFAULT_FILE_TYPE, with_tensors  # noqa: PLC0415 - see _from_folder
    from planner.quantization.file_types import known_file_type  # noqa: PLC0415 - see _from_folder

    if not model.language.layers:
        return model
    file_type = known_file_type(quantization or DEFAULT_FILE_TYPE)
    said = f"planned as a {file_type} GGUF file converted from this folder"
    return replace(with_tensors(model, file_type), notes=(*model.notes, said))


def _in_scheme(model: Model, quantization: str | None) -> Model:
    return model if quantization is None else replace(model, quantization=quantization)


def _by_name(source: str, wanted: _Wanted) -> Model:
    """Return a profile's model, or that of a hub id that no profile has."""
    from planner.catalog.models import load_model  # noqa: PLC0415 - YAML is behind it

    if source.endswith(".gguf") or source.startswith((".", "/", "~")):
        raise SourceError(f"{source}: no such file or folder")
    try:
        return _profile(load_model(source, wanted.quantization, "gguf" if wanted.gguf else "hf"), wanted)
    except UsageError:
        if not hub.looks_like_hub_id(source):
            raise
    return _from_hub(source, wanted)


def _profile(model: Model, wanted: _Wanted) -> Model:
    """Return the profile's model with the projector file that was named, if any."""
    if wanted.projector is None or wanted.text_only:
        return model
    from planner.sources.gguf.vision import vision_from_gguf  # noqa: PLC0415 - only here

    file = _projector_file(wanted.projector, wanted)
    vision = vision_from_gguf(file)
    if model.vision is not None:
        vision = replace(vision, rules=vision.rules or model.vision.rules)
    return replace(model, vision=vision, projector_file_bytes=file.file_bytes, projector_source=wanted.projector)


def _with_reason(network: Network, why: str) -> Network:
    return network if network.allowed else replace(network, reason=f"{why}; {network.reason}")


def _local(path: Path) -> Folder:
    from planner.sources.hf.documents import LocalFolder  # noqa: PLC0415 - only for folders

    return LocalFolder(path=path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
