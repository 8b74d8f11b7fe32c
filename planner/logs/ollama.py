"""An Ollama server's log: its own estimates before a load (to 0.24), its engine's allocations, its devices.

Formats: ollama ``llm/memory.go`` (0.1.30 to 0.12), ``ml/backend/ggml/ggml.go`` (0.6 to 0.10), ``ml/device.go`` and
``discover/types.go`` (from 0.11 on). What llama.cpp prints inside is read by its own reader.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from itertools import pairwise

from planner.logs.found import Figure, Log, LoggedDevice, LoggedModel, printed
from planner.logs.llama_cpp import as_ollama
from planner.logs.llama_cpp_devices import is_host

_PAIR = re.compile(r'([A-Za-z_][\w.]{0,60})=("(?:[^"\\]|\\.)*"|[^\s"]\S*)')
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) (B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)")
_VERSION = re.compile(r"[Ll]istening on \S{1,100} \(version (\d+\.\d+\.\d+)")
_LAYERS = re.compile(r"offloaded (\d{1,6})/(\d{1,6}) layers to GPU")
_ESTIMATES = {
    "memory.required.full": ("total", "all", "memory.required.full"),
    "memory.required.kv": ("kv_cache", "language", "memory.required.kv"),
    "memory.weights.total": ("weights", "language", "memory.weights.total"),
    "memory.graph.full": ("compute", "language", "memory.graph.full"),
    "projector.weights": ("weights", "vision", "projector.weights"),
    "projector.graph": ("compute", "vision", "projector.graph"),
}
_ALLOCATED = {"model weights": "weights", "kv cache": "kv_cache", "compute graph": "compute"}
_MARKS = ("istening on", "inference compute", "msg=offload", "size=", "cmd=", "offloaded", "architecture=")
_OPTIONS = {"--ctx-size": "ctx", "--batch-size": "num_batch", "--n-gpu-layers": "num_gpu", "--parallel": "num_parallel"}


@dataclass(slots=True)
class OllamaReader:
    """Reads line by line; ``finish`` returns what was found, or None."""

    version: str | None = None
    seen: bool = False
    devices: list[LoggedDevice] = field(default_factory=list)
    estimates: list[Figure] = field(default_factory=list)
    allocated: dict[tuple[str, str], Figure] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)

    def feed(self, line: str) -> None:
        """Take one line."""
        if "msg=" not in line or not any(mark in line for mark in _MARKS):
            return
        said = {key: value.strip('"') for key, value in _PAIR.findall(line[:16384])}
        message = said.get("msg", "")
        if (version := _VERSION.search(message)) is not None:
            self.seen, self.version = True, version[1]
        elif message == "inference compute":
            self._device(said)
        elif message == "offload":
            self._offload(said)
        elif message in _ALLOCATED:
            self._allocation(message, said)
        elif message.startswith("starting") and "cmd" in said:
            self._command(said["cmd"])
        elif (layers := _LAYERS.search(message)) is not None:
            self.settings["num_gpu"] = -1 if layers[1] == layers[2] else int(layers[1])
        elif "architecture" in said and "file_type" in said:
            self.model = {key: said[key] for key in ("architecture", "file_type", "name") if said.get(key)}

    def _device(self, said: dict[str, str]) -> None:
        self.seen = True
        if said.get("library", "").lower() == "cpu" or len(self.devices) > 64:
            return
        prefix = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "Metal"}.get(
            said.get("library", "").lower()
        )
        self.devices.append(
            LoggedDevice(
                device=f"{prefix or 'GPU'}{len(self.devices)}",
                name=said.get("description") or said.get("name", ""),
                total_bytes=_bytes(said.get("total")),
                free_bytes=_bytes(said.get("available")),
                driver=said.get("driver"),
            )
        )

    def _offload(self, said: dict[str, str]) -> None:
        self.seen = True
        self.estimates, self.allocated = [], {}
        sizes = _SIZE.findall(said.get("memory.required.allocations", ""))
        for index, (number, unit) in enumerate(sizes[:64]):
            self.estimates.append(_figure(f"CUDA{index}", "total", "all", "memory.required.allocations", number, unit))
        for key, (component, part, term) in _ESTIMATES.items():
            size = _SIZE.match(said.get(key, ""))
            if size is not None:
                self.estimates.append(_figure("all", component, part, term, *size.groups()))
        offload, whole = said.get("layers.offload", ""), said.get("layers.model", "")
        if offload.isdecimal() and len(offload) < 7:
            self.settings["num_gpu"] = -1 if offload == whole else int(offload)
        available = _SIZE.findall(said.get("memory.available", ""))
        if available and len(self.devices) < len(available):
            self.devices = [
                LoggedDevice(device=f"CUDA{i}", free_bytes=printed(*one)[0]) for i, one in enumerate(available[:64])
            ]

    def _allocation(self, message: str, said: dict[str, str]) -> None:
        device = said.get("device") or said.get("buffer") or said.get("buffer_type") or said.get("backend", "")
        size = _SIZE.match(said.get("size", ""))
        if not device or size is None:
            return
        self.seen = True
        part = "language" if message == "kv cache" else "all"
        name = "Host" if is_host(device) else device
        number, unit = size.groups()
        self.allocated[device, message] = _figure(name, _ALLOCATED[message], part, message, number, unit, "load")

    def _command(self, command: str) -> None:
        try:
            words = shlex.split(command.replace('\\"', '"'))[:200]
        except ValueError:
            words = command.split()[:200]
        self.seen = True
        for option, value in pairwise(words):
            if option in _OPTIONS and value.isdecimal() and len(value) < 10:
                self.settings[_OPTIONS[option]] = int(value)
            elif option == "--kv-cache-type" and value in {"f16", "q8_0", "q4_0"}:
                self.settings["kv_cache_type"] = value
            elif option == "--model":
                self.model["file"] = value
            elif option == "--mmproj":
                self.model["projector"] = value
        if "--flash-attn" in words:
            self.settings["flash_attention"] = True

    def finish(self, inner: Log | None) -> Log | None:
        """Return the log; ``inner`` is what llama.cpp's lines within it say."""
        if not self.seen:
            return None
        estimates = tuple(self.estimates)
        if inner is not None and not self.allocated:
            outer = as_ollama(inner, self.version, tuple(self.devices))
            return replace(outer, figures=(*outer.figures, *estimates))
        figures = (*self.allocated.values(), *estimates)
        if not figures:
            return None
        file_type = self.model.get("file_type")
        return Log(
            kind="ollama",
            engine="ollama",
            engine_version=self.version,
            model=LoggedModel(
                name=self.model.get("name"),
                file=self.model.get("file"),
                architecture=self.model.get("architecture"),
                file_type=file_type,
            ),
            settings=self._settings(),
            devices=tuple(self.devices) or _devices_of(tuple(self.allocated.values())),
            figures=figures,
        )

    def _settings(self) -> dict[str, object]:
        found = {key: value for key, value in self.settings.items() if key != "ctx"}
        context, slots = self.settings.get("ctx"), found.get("num_parallel", 1)
        if isinstance(context, int) and isinstance(slots, int):
            found["num_ctx"] = context // max(1, slots)
        return found


def _devices_of(figures: tuple[Figure, ...]) -> tuple[LoggedDevice, ...]:
    names = sorted({figure.device for figure in figures if figure.device != "Host"})
    return tuple(LoggedDevice(device=name) for name in names)


def _bytes(text: str | None) -> int | None:
    size = _SIZE.match(text or "")
    return None if size is None else printed(*size.groups())[0]


def _figure(  # noqa: PLR0913 - a figure has many parts
    device: str, component: str, part: str, term: str, number: str, unit: str, moment: str = "estimate"
) -> Figure:
    n_bytes, low, high = printed(number, unit)
    return Figure(
        device=device,
        component=component,  # type: ignore[arg-type] # a word of the budget
        part=part,  # type: ignore[arg-type] # same
        term=term,
        n_bytes=n_bytes,
        low_bytes=low,
        high_bytes=high,
        moment=moment,  # type: ignore[arg-type] # same
    )
