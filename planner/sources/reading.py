"""Models that are read: from files and folders here, Ollama's store and registry, the hub, and addresses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import SourceError, UsageError
from planner.sources import hub, ollama
from planner.sources.gguf.file import part_names, read_gguf, read_parts
from planner.sources.gguf.model import model_from_files
from planner.sources.projectors import embedded_projector, projector_beside
from planner.sources.remote import RemoteBytes

if TYPE_CHECKING:
    from planner.model import Model
    from planner.sources.bytes import ByteSource
    from planner.sources.gguf.file import GgufFile
    from planner.sources.hf import Folder
    from planner.sources.network import Network
    from planner.sources.wanted import Wanted

_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


def read_source(source: str, wanted: Wanted) -> Model:
    """Return the model at an address, behind a tag or hub id (``ollama:``, ``hf:``), or at a path that exists.

    Raises:
        SourceError: it is damaged, hostile, or needs a network that is not allowed.
    """
    if _ADDRESS.match(source):
        return _from_address(source, wanted)
    if source.startswith("ollama:"):
        return _from_ollama(source.removeprefix("ollama:"), wanted)
    if source.startswith("hf:"):
        return _from_hub(source.removeprefix("hf:"), wanted)
    return _from_path(Path(source).expanduser(), wanted)


def with_named_projector(model: Model, wanted: Wanted) -> Model:
    """Return a profile's model with the projector file that was named instead of the profile's.

    Raises:
        SourceError: it cannot be read.
    """
    from planner.sources.gguf.vision import vision_from_gguf  # noqa: PLC0415 - only here

    named = str(wanted.projector)
    file = _projector_file(named, wanted)
    vision = vision_from_gguf(file)
    if model.vision is not None:
        vision = replace(vision, rules=vision.rules or model.vision.rules)
    return replace(model, vision=vision, projector_file_bytes=file.file_bytes, projector_source=named)


def _from_path(path: Path, wanted: Wanted) -> Model:
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


def _with_projector(file: GgufFile, path: Path, wanted: Wanted) -> tuple[Model, Path | None]:
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


def _from_address(url: str, wanted: Wanted) -> Model:
    projector = None
    if wanted.projector and not wanted.text_only:
        projector = _projector_file(wanted.projector, wanted)
    file = _remote_gguf(url, wanted.network)
    language, inside = embedded_projector(file)
    return model_from_files(language, projector or inside)


def _projector_file(source: str, wanted: Wanted) -> GgufFile:
    return _remote_gguf(source, wanted.network) if _ADDRESS.match(source) else read_gguf(Path(source).expanduser())


def _remote_gguf(url: str, network: Network) -> GgufFile:
    def part(name: str) -> ByteSource:
        return RemoteBytes(url=name, network=network)

    return read_parts(part_names(url), part)


def _from_ollama(text: str, wanted: Wanted) -> Model:
    tag = ollama.parse_tag(text)
    found = ollama.open_stored(tag, ollama.store_directories())
    if found is None:
        found = ollama.open_registry(tag, _with_reason(wanted.network, f"{tag} is in no local Ollama store", str(tag)))
    language, inside = embedded_projector(_one_file(found.model))
    separate = _one_file(found.projector) if found.projector is not None and not wanted.text_only else None
    if wanted.projector is not None and not wanted.text_only:
        separate = _projector_file(wanted.projector, wanted)
    model = model_from_files(language, separate or inside, str(tag))
    said = tuple(f"Modelfile: {key} {value}" for key, value in found.parameters.items() if key.startswith("num_"))
    return replace(model, notes=(*model.notes, *said))


def _one_file(source: ByteSource) -> GgufFile:
    return read_parts((source.name,), lambda _: source)


def _from_hub(text: str, wanted: Wanted) -> Model:
    hub_id = hub.parse_hub_id(text)
    cached = hub.cached_folder(hub_id)
    folder: Folder
    if cached is not None:
        folder = _local(cached)
    else:
        folder = hub.open_remote(
            hub_id, _with_reason(wanted.network, f"{hub_id} is not in the local cache", hub_id.repository)
        )
    if "config.json" in folder.files and hub_id.tag is None:
        return _from_folder(folder, wanted, hub_id.repository)
    return _from_gguf_repository(folder, hub_id, wanted)


def _from_gguf_repository(folder: Folder, hub_id: hub.HubId, wanted: Wanted) -> Model:
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


def _from_folder(folder: Folder, wanted: Wanted, hf_id: str | None = None) -> Model:
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


def _with_reason(network: Network, why: str, name: str) -> Network:
    """Return the network with why it is needed, and the profile that needs none where the catalogue has ``name``."""
    if network.allowed:
        return network
    from planner.catalog.models import find_model  # noqa: PLC0415 - only where nothing is read

    try:
        instead = f", or name the profile: {find_model(name).name}"
    except UsageError:
        instead = ""
    return replace(network, reason=f"{why}; {network.reason}{instead}")


def _local(path: Path) -> Folder:
    from planner.sources.hf.documents import LocalFolder  # noqa: PLC0415 - only for folders

    return LocalFolder(path=path)
