"""The request and the machine behind a log: what was asked, as far as the log tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from planner.errors import UsageError, VlplanError
from planner.gpu_catalog import sized_gpu
from planner.logs.found import Log, LoggedDevice
from planner.machine import Backend, Gpu, Host, Machine
from planner.units import GIB, align

_BACKENDS: Mapping[str, Backend] = {
    "CUDA": "cuda",
    "ROCm": "rocm",
    "Vulkan": "vulkan",
    "SYCL": "sycl",
    "MTL": "metal",
    "Metal": "metal",
}
_SPLIT_FILE = re.compile(r"-\d{5}-of-\d{5}$")
_FILE_TYPE = re.compile(r"[-._](?:UD-)?(?:I?Q\d\w*|F16|BF16|F32|FP16)$", re.IGNORECASE)
_PUBLISHERS = frozenset({"meta", "instruct", "it", "chat", "hf", "gguf"})
MAX_CONTEXT = 1 << 30


def request_of(
    log: Log, *, model: str | None = None, engine: str | None = None, settings: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return the request mapping that a log shows; what the user says comes before what the log says.

    Raises:
        UsageError: the log names no engine or no model that can be found here; say it with --engine or --model.
    """
    word = engine or log.engine
    if word is None:
        raise UsageError(f"a {log.kind} log names no engine; give --model and --engine, or an engine's log beside it")
    merged = {**(_settings(log) if word == log.engine else {}), **(settings or {})}
    found: dict[str, object] = {"engine": word, "settings": merged, "model": model or _model(log, word)}
    named_file = model is not None and model.lower().endswith(".gguf")
    if word in {"llama.cpp", "ollama"}:
        if log.model.file_type and not named_file and not str(found["model"]).endswith(".gguf"):
            found["quantization"] = log.model.file_type
        if not _has_vision(log):
            found["projector"] = "none"
    if word != "llama.cpp" and log.engine_version is not None and word == log.engine:
        found["engine_version"] = log.engine_version
    found["workload"] = _workload(merged)
    return found


def _settings(log: Log) -> dict[str, object]:
    said = dict(log.settings)
    if log.engine == "llama.cpp":
        said["fit"] = "off"  # what the engine settled on stands in the log
        split = _split(log)
        if split is not None:
            said["tensor_split"] = split
    return said


def _split(log: Log) -> list[float] | None:
    """Return the layers of each GPU as shares, from how the cache is spread; None on fewer than two GPUs.

    Slot ``i`` goes to the first GPU whose cumulated share exceeds ``i``, so each bound lies half a slot lower; the
    output is the last slot.
    """
    sizes = {device.device: 0 for device in log.devices}
    for figure in log.figures:
        if figure.component == "kv_cache" and figure.device in sizes:
            sizes[figure.device] += figure.n_bytes
    layers, whole = log.model.n_layers, sum(sizes.values())
    if len(sizes) < 2 or not whole:
        return None
    offloaded = log.settings.get("n_gpu_layers", -1)
    n_there = offloaded - 1 if isinstance(offloaded, int) and offloaded > 0 else layers
    if n_there is None:
        return None
    counts = [size * n_there / whole for size in sizes.values()]
    bounds = [round(sum(counts[: i + 1])) for i in range(len(counts))]
    shares = [float(b - a) for a, b in zip([0, *bounds], bounds, strict=False)]
    last = max((i for i, share in enumerate(shares) if share), default=0)
    first = next(i for i, share in enumerate(shares) if share)
    if first != last:
        shares[first] -= 0.5
        shares[last] += 1.5
    return shares


def _has_vision(log: Log) -> bool:
    return any(figure.part == "vision" for figure in log.figures) or (
        log.kind == "ollama" and any(figure.part == "all" and figure.moment == "load" for figure in log.figures)
    )


def _workload(settings: Mapping[str, object]) -> dict[str, object]:
    sequences = next((settings[key] for key in ("parallel", "num_parallel") if isinstance(settings.get(key), int)), 1)
    context = next(
        (settings[key] for key in ("ctx_size", "num_ctx", "max_model_len") if isinstance(settings.get(key), int)), None
    )
    n_sequences = max(1, int(str(sequences)))
    if context is None:
        return {"sequences": n_sequences}
    shared = "ctx_size" in settings and not settings.get("kv_unified")
    own = int(str(context)) // (n_sequences if shared else 1)
    return {"context": max(1, min(own, MAX_CONTEXT)), "sequences": n_sequences}


def _model(log: Log, engine: str) -> str:
    """Return the first of the log's names for the model that can be opened here."""
    from planner.sources.opening import open_model  # noqa: PLC0415 - behind it are all readers

    tried = list(dict.fromkeys(_names(log)))
    for name in tried:
        try:
            open_model(name, engine=engine, offline=True)
        except VlplanError:
            continue
        return name
    said = ", ".join(repr(name[:60]) for name in tried[:4]) or "none"
    raise UsageError(f"the log's model is not known here (it says: {said}); name it with --model")


def _names(log: Log) -> Iterator[str]:
    model = log.model
    if model.file and Path(model.file).is_file():
        yield model.file
    if model.name:
        yield from _variants(model.name)
    if model.file:
        stem = _SPLIT_FILE.sub("", model.file.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".gguf"))
        if not stem.startswith("sha256-"):
            yield from _variants(stem)


def _variants(name: str) -> Iterator[str]:
    """Yield the name, without its file type, and without the words that publishers add."""
    yield name
    bare = _FILE_TYPE.sub("", name)
    yield bare
    words = [word for word in re.split(r"[ _-]+", bare) if word.lower() not in _PUBLISHERS]
    yield "-".join(words)


def machine_of_log(log: Log, host: Host) -> tuple[Machine, tuple[str, ...]]:
    """Return the machine that a log shows, marked as described, and a sentence for each thing assumed about it.

    A GPU's memory is what the log says, else the catalogue's, else what the log's figures need and half as much.
    """
    said: list[str] = []
    gpus = tuple(_gpu(log, device, host, said) for device in log.devices)
    return Machine(gpus=gpus, host=host, simulated=True), tuple(said)


def _gpu(log: Log, device: LoggedDevice, host: Host, said: list[str]) -> Gpu:
    backend: Backend = next((word for prefix, word in _BACKENDS.items() if device.device.startswith(prefix)), "cuda")
    free = device.free_bytes
    try:
        gpu = sized_gpu(device.name, device.total_bytes, free, host_bytes=host.total_bytes, where=device.device)
    except UsageError:
        held = sum(figure.n_bytes for figure in log.figures if figure.device == device.device)
        total = align(max(held + held // 2, device.total_bytes or 0, free or 0, GIB), GIB)
        said.append(f"{device.device}: its memory is not in the log; {total // GIB} GiB are assumed")
        gpu = Gpu(name=device.name or device.device, total_bytes=total, free_bytes=total if free is None else free)
    return replace(gpu, backend=backend, driver=device.driver)
