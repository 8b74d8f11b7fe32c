"""Ollama's model store and registry: a tag's manifest names the blobs that hold model, projector and parameters.

Layout (Ollama 0.33): ``manifests/<host>/<namespace>/<name>/<tag>`` is JSON whose layers carry a media type and a
``sha256:`` digest; the blob lies at ``blobs/sha256-<hex>``. Templates, licences and messages are not read.
"""

from __future__ import annotations

import os
import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.sources.bytes import FileBytes, open_file, read_whole
from planner.sources.json_text import Fields, parse_object
from planner.sources.network import Network, fetch_small, request
from planner.sources.remote import RemoteBytes
from planner.units import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.sources.access import Access
    from planner.sources.bytes import ByteSource

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_SERVER = "http://127.0.0.1:11434"
MAX_MANIFEST_BYTES = MIB
MAX_LAYERS = 256
Parameter = int | float | str | bool

_KINDS = {
    "application/vnd.ollama.image.model": "model",
    "application/vnd.ollama.image.projector": "projector",
    "application/vnd.ollama.image.params": "params",
}
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}(:\d{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A full model name: ``host/namespace/name:tag``."""

    host: str
    namespace: str
    name: str
    tag: str

    def __str__(self) -> str:
        prefix = "" if self.host == DEFAULT_HOST else f"{self.host}/"
        space = "" if self.namespace == "library" and not prefix else f"{self.namespace}/"
        return f"{prefix}{space}{self.name}:{self.tag}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One blob of a tag: ``kind`` is model, projector or params."""

    kind: str
    digest: str  # 64 hexadecimal digits
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedModel:
    """What a tag consists of, ready to be read: the model's file, its projector where it has one, its parameters."""

    tag: Tag
    model: ByteSource
    model_bytes: int
    projector: ByteSource | None = None
    projector_bytes: int | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)  # num_ctx, num_gpu, temperature, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningModel:
    """One row of a server's ``/api/ps``: what it says is loaded, and how many of its bytes are on GPUs."""

    name: str
    size_bytes: int
    vram_bytes: int
    context_tokens: int | None = None


def parse_tag(text: str) -> Tag:
    """Return the full name that ``text`` abbreviates: ``qwen2.5vl:7b`` is in the library, its tag may be left out.

    Raises:
        SourceError: empty parts, or characters that could lead out of the store.
    """
    path, _, tag = text.rpartition(":") if ":" in text.rsplit("/", 1)[-1] else (text, "", "latest")
    parts = path.split("/")
    if not 1 <= len(parts) <= 3:
        raise SourceError(f"{text[:80]!r} is not an Ollama name; write it like name:tag or namespace/name:tag")
    host, namespace, name = [DEFAULT_HOST, "library", ""][: 3 - len(parts)] + parts
    if not _HOST.fullmatch(host) or ".." in host or not all(_PART.fullmatch(p) for p in (namespace, name, tag)):
        raise SourceError(f"{text[:80]!r} is not an Ollama name; write it like name:tag or namespace/name:tag")
    return Tag(host=host, namespace=namespace, name=name, tag=tag)


def store_directories(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the stores to look in: ``OLLAMA_MODELS`` alone where set, else the user's and then the service's."""
    chosen = environment.get("OLLAMA_MODELS", "").strip()
    if chosen:
        return (Path(chosen).expanduser(),)
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or "~").expanduser()
    return (home / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models"))


def read_manifest(data: bytes, name: str) -> tuple[Layer, ...]:
    """Return the layers that a planner needs; digests are checked for form, so that none can lead out of ``blobs``.

    Raises:
        SourceError: not a manifest, a digest that is not one, or no model layer.
    """
    entries = Fields(values=parse_object(data, name), where=name).items("layers")
    if len(entries) > MAX_LAYERS:
        raise SourceError(f"{name}: {len(entries)} layers; refused")
    layers = tuple(layer for entry in entries if (layer := _layer(entry, name)) is not None)
    if not any(layer.kind == "model" for layer in layers):
        raise SourceError(f"{name}: has no model layer; only GGUF models of Ollama can be read")
    return layers


def open_stored(tag: Tag, directories: tuple[Path, ...]) -> TaggedModel | None:
    """Return the tag from the first store that holds it, None where none does.

    Raises:
        SourceError: it is there but damaged: a bad manifest, a missing or cut blob.
    """
    for directory in directories:
        manifest = directory / "manifests" / tag.host / tag.namespace / tag.name / tag.tag
        if _is_file(manifest):
            layers = read_manifest(read_whole(open_file(manifest), MAX_MANIFEST_BYTES), str(manifest))
            return _assembled(tag, layers, {layer.digest: _blob(directory, layer) for layer in layers})
    return None


def open_registry(tag: Tag, network: Network, *, scheme: str = "https") -> TaggedModel:
    """Return a tag that is not pulled, its blobs read by range from the registry.

    Raises:
        SourceError: the network is not allowed, the tag does not exist, or the registry misbehaves.
    """
    base = f"{scheme}://{tag.host}/v2/{tag.namespace}/{tag.name}"
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    url = f"{base}/manifests/{tag.tag}"
    data = fetch_small(network, url, limit_bytes=MAX_MANIFEST_BYTES, headers=accept)
    if data is None:
        raise SourceError(f"{url}: HTTP 404: the registry has no {tag}")
    layers = read_manifest(data, url)
    blobs: dict[str, ByteSource] = {
        layer.digest: RemoteBytes(url=f"{base}/blobs/sha256:{layer.digest}", network=network) for layer in layers
    }
    return _assembled(tag, layers, blobs)


def server_address(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the running server is: ``OLLAMA_HOST`` (a host, a port or an address), else the usual port."""
    text = environment.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not text:
        return DEFAULT_SERVER
    if "://" not in text:
        text = f"http://{text if not text.startswith(':') else '127.0.0.1' + text}"
    host = text.split("://", 1)[1]
    text = text.replace("://0.0.0.0", "://127.0.0.1")
    return text if re.search(r":\d+$", host) else f"{text}:11434"


def running_models(network: Network, server: str) -> tuple[RunningModel, ...]:
    """Return what the server at ``server`` has loaded (``GET /api/ps``).

    Raises:
        SourceError: it does not answer, or not like Ollama.
    """
    url = f"{server}/api/ps"
    data = fetch_small(network, url, limit_bytes=MAX_MANIFEST_BYTES)
    if data is None:
        raise SourceError(f"{url}: HTTP 404: no Ollama server answers there")
    entries = Fields(values=parse_object(data, url), where=url).items("models")
    return tuple(_running(entry, url) for entry in entries[:MAX_LAYERS])


def model_parameters(network: Network, server: str, tag: Tag) -> dict[str, Parameter]:
    """Return the parameters of a tag as a running server resolves them (``POST /api/show``).

    Raises:
        SourceError: it does not answer, or does not know the tag.
    """
    url = f"{server}/api/show"
    answer = request(network, url, limit_bytes=16 * MIB, post={"model": str(tag)})
    if answer.status != 200:
        raise SourceError(f"{url}: HTTP {answer.status}: the server does not know {tag}")
    text = Fields(values=parse_object(answer.body, url), where=url).first("parameters")
    return parse_parameters(text if isinstance(text, str) else "")


def said_by_server(text: str, access: Access) -> tuple[str, ...]:
    """Return what the running server says about ``text`` (``ollama:name:tag``): its parameters, and what is loaded.

    Raises:
        SourceError: the network is forbidden, no server answers, or it does not know the tag.
    """
    tag, server = parse_tag(text.removeprefix("ollama:")), server_address()
    network = Network(allowed=not access.offline, timeout_s=access.timeout_s, reason="--offline forbids it")
    parameters = model_parameters(network, server, tag)
    said = [f"server: {key} {value}" for key, value in sorted(parameters.items()) if key.startswith("num_")]
    names = {str(tag), f"{tag.namespace}/{tag.name}:{tag.tag}"}
    loaded = [model for model in running_models(network, server) if model.name in names]
    said += [
        f"server: loaded with {model.size_bytes} bytes, {model.vram_bytes} of them on GPUs"
        + (f", context {model.context_tokens}" if model.context_tokens else "")
        for model in loaded
    ]
    return tuple(said if loaded else [*said, "server: not loaded at the moment"])


def parse_parameters(text: str) -> dict[str, Parameter]:
    """Return the parameters printed one a line as ``num_ctx    4096``; a repeated one (stop) keeps its first value."""
    found: dict[str, Parameter] = {}
    for line in text.splitlines()[:1000]:
        key, _, value = line.strip().partition(" ")
        if value.strip() and key not in found:
            found[key] = _scalar(value.strip().strip('"'))
    return found


def _scalar(text: str) -> Parameter:
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,18}\.\d{1,18}", text):
        return float(text)
    return {"true": True, "false": False}.get(text, text[:200])


def _layer(entry: object, name: str) -> Layer | None:
    if not isinstance(entry, dict):
        raise SourceError(f"{name}: a layer is not an object")
    fields = Fields(values=entry, where=f"{name}, layer")
    kind = _KINDS.get(fields.text("mediaType"))
    if kind is None:
        return None
    match = _DIGEST.fullmatch(fields.text("digest"))
    if match is None:
        raise SourceError(f"{name}: {fields.text('digest')[:80]!r} is not a sha256 digest; refused")
    return Layer(kind=kind, digest=match.group(1), size_bytes=fields.require("size"))


def _blob(directory: Path, layer: Layer) -> FileBytes:
    """Return the blob of a layer: present, and as long as the manifest says."""
    path = directory / "blobs" / f"sha256-{layer.digest}"
    if not _is_file(path):
        raise SourceError(f"{path}: the {layer.kind} blob is missing; pull the tag again")
    source = FileBytes(path=path)
    if source.size != layer.size_bytes:
        raise SourceError(f"{path}: has {source.size} bytes, the manifest wants {layer.size_bytes}; pull the tag again")
    return source


def _assembled(tag: Tag, layers: tuple[Layer, ...], blobs: Mapping[str, ByteSource]) -> TaggedModel:
    by_kind = {layer.kind: layer for layer in reversed(layers)}
    model, projector = by_kind["model"], by_kind.get("projector")
    return TaggedModel(
        tag=tag,
        model=blobs[model.digest],
        model_bytes=model.size_bytes,
        projector=blobs[projector.digest] if projector else None,
        projector_bytes=projector.size_bytes if projector else None,
        parameters=_parameters(blobs[by_kind["params"].digest]) if "params" in by_kind else {},
    )


def _parameters(source: ByteSource) -> dict[str, Parameter]:
    values = parse_object(read_whole(source, MAX_MANIFEST_BYTES), source.name)
    return {key: value for key, value in values.items() if isinstance(value, int | float | str | bool)}


def _running(entry: object, url: str) -> RunningModel:
    if not isinstance(entry, dict):
        raise SourceError(f"{url}: a model is not an object")
    fields = Fields(values=entry, where=url)
    return RunningModel(
        name=fields.text("name", "model"),
        size_bytes=fields.require("size"),
        vram_bytes=fields.require("size_vram"),
        context_tokens=fields.integer("context_length"),
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
