"""Logs of llama.cpp's programs and bindings, of any spelling since 2024.

Formats: llama.cpp 0.5.0-dev, ``llama-model.cpp``, ``llama-kv-cache.cpp``, ``llama-context.cpp``, ``clip.cpp``,
``common/fit.cpp``; the names of the functions before the colon changed often, so only their kind is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.logs.found import Figure, Log, LoggedDevice, LoggedModel, printed
from planner.logs.llama_cpp_devices import Devices, is_host

_BUFFER = re.compile(
    r"(?:(\w+):\s+)?(\S+)\s+(?:(model|KV|RS|compute|output|DSV4 \w+ state) )?buffer size (?:=|of)\s*"
    r"(\d{1,9}\.\d{1,4}) (MiB|MB)"
)
_SETTING = re.compile(
    r"\b(n_seq_max|n_ctx|n_ctx_seq|n_ctx_per_seq|n_batch|n_ubatch|flash_attn|kv_unified|n_outputs_max)\s+=\s+(\w{1,20})$"
)
_CACHE = re.compile(r"size\s+=\s*\d{1,9}\.\d\d MiB.{0,60}?\bK \((\w+)\):.{0,30}?\bV \((\w+)\):")
_LATENT_CACHE = re.compile(r"KV self size\s+=\s*\d{1,9}\.\d\d MiB, c\^KV \((\w+)\):")
_REPEATING = re.compile(r"offloading (\d{1,6}) repeating layers to GPU")
_OFFLOADED = re.compile(r"offloaded (\d{1,6})/(\d{1,6}) layers to GPU")
_MODEL = re.compile(
    r"(?:print_info|llm_load_print_meta): "
    r"(arch|general\.name|file type|model ftype|model type|n_layer|n_ctx_train)\s*=\s(.{1,200})$"
)
_FILE = re.compile(r"loaded meta data with \d{1,9} key-value pairs and \d{1,9} tensors from (.{1,1000}) \(version")
_BUILD = re.compile(r"\bbuild(?:_info)?\s?(?::|=)\s*b?(\d{3,6})[ -]\(?([0-9a-f]{7,12})")
_VISION_BACKEND = re.compile(r"CLIP using (\w+) backend|vision using (\w+) backend")
_VISION_SIZE = re.compile(
    r"(model size:|params backend buffer size =|compute allocated memory:)\s+(\d{1,7}\.\d\d) (MiB|MB)"
)
_VISION_FUNCTIONS = ("alloc_compute_meta", "reserve_compute_meta", "clip_", "mtmd_")
_TYPE = re.compile(r"(\S+) - (Small|Medium|Large)")
_COMPONENTS = {"KV": "kv_cache", "RS": "kv_cache", "compute": "compute", "output": "overhead"}


@dataclass(slots=True)
class _Load:
    """What belongs to one load of a model; a log may hold several."""

    figures: dict[tuple[object, ...], Figure] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    model: dict[str, str] = field(default_factory=dict)
    n_contexts: int = 0
    n_reserves: int = 0
    n_towers: int = 0
    tower_device: str = "Host"
    offloaded: tuple[int, int] | None = None
    n_repeating: int | None = None
    pipeline: bool = False
    probe: bool = False  # a dry load that allocates nothing

    @property
    def output_left(self) -> bool:
        """Whether the output layer was left on the host, as builds before 2025 do in a partial offload."""
        return bool(self.n_repeating) and self.offloaded is not None and self.n_repeating == self.offloaded[0]

    @property
    def measured(self) -> bool:
        """Whether it allocated anything."""
        return bool(self.figures) and not self.probe


@dataclass(slots=True)
class LlamaCppReader:
    """Reads line by line; ``finish`` returns what was found, or None."""

    loads: list[_Load] = field(default_factory=lambda: [_Load()])
    devices: Devices = field(default_factory=Devices)
    n_loads: int = 0
    version: str | None = None
    server: bool = False
    vision_cli: bool = False

    def feed(self, line: str) -> None:
        """Take one line."""
        if self.devices.feed(line):
            return
        if "buffer size" in line and (found := _BUFFER.search(line)):
            self._buffer(*found.groups())
        elif " = " in line or ":" in line:
            self._other(line)

    def _buffer(self, function: str | None, name: str, kind: str | None, number: str, unit: str) -> None:
        if (function or "").startswith(_VISION_FUNCTIONS) or name == "backend":
            if kind == "compute":
                self._add(name, "compute", "vision", "compute buffer", number, unit, self.load.n_towers)
            elif name == "backend":  # "params backend buffer size"
                self._add(self.load.tower_device, "weights", "vision", "projector", number, unit, self.load.n_towers)
            return
        if kind is None and not (function or "").endswith("load_tensors"):
            return
        component = _COMPONENTS.get(kind or "model", "kv_cache" if kind and kind.startswith("DSV4") else "weights")
        # a graph reserved anew replaces the one before; caches and weights stand beside each other
        order: object = self.load.n_contexts if component == "compute" else len(self.load.figures)
        word = " (mapped file)" if name.endswith("_Mapped") else " (repacked)" if "REPACK" in name else ""
        self._add(name, component, "language", f"{kind or 'model'} buffer{word}", number, unit, order)

    def _add(  # noqa: PLR0913 - a figure has many parts
        self, name: str, component: str, part: str, term: str, number: str, unit: str, order: object
    ) -> None:
        n_bytes, low, high = printed(number, unit)
        load = self.load
        if len(load.figures) > 10_000:
            return
        load.figures[(component, part, name, order)] = Figure(
            device="Host" if is_host(name) else name,
            component=component,  # type: ignore[arg-type] # one of the words above
            part=part,  # type: ignore[arg-type] # same
            term=term,
            n_bytes=n_bytes,
            low_bytes=low,
            high_bytes=high,
        )

    @property
    def load(self) -> _Load:
        """The load that lines now belong to."""
        return self.loads[-1]

    def _other(self, line: str) -> None:
        if "loaded meta data with" in line and (file := _FILE.search(line)):
            self._next_load()
            self.load.model["file"] = file[1]
        elif (setting := _SETTING.search(line)) is not None and "llama_" in line:
            self._setting(setting[1], setting[2])
        elif (cache := _CACHE.search(line)) is not None:
            self.load.settings["cache_type_k"], self.load.settings["cache_type_v"] = cache[1], cache[2]
        elif (latent := _LATENT_CACHE.search(line)) is not None:
            self.load.settings["cache_type_k"] = latent[1]
        elif (offloaded := _OFFLOADED.search(line)) is not None:
            self.load.offloaded = int(offloaded[1]), int(offloaded[2])
        elif (repeating := _REPEATING.search(line)) is not None:
            self.load.n_repeating = int(repeating[1])
        elif (model := _MODEL.search(line)) is not None:
            self.load.model[model[1]] = model[2].strip()
        elif (tower := _VISION_BACKEND.search(line)) is not None:
            self._tower(tower[1] or tower[2])
        elif (size := _VISION_SIZE.search(line)) is not None:
            self._vision_size(line, *size.groups())
        else:
            self._program(line)

    def _next_load(self) -> None:
        self.n_loads += 1
        if self.load.measured:
            self.loads = [*self.loads[-7:], _Load()]
        else:
            self.loads[-1] = _Load()

    def _setting(self, name: str, value: str) -> None:
        if name == "n_seq_max" or (name == "n_ctx" and "n_seq_max" not in self.load.settings):
            self.load.n_contexts += 1
        self.load.settings[name] = value

    def _tower(self, backend: str) -> None:
        self.load.n_towers += 1
        self.load.tower_device = "CUDA0" if backend == "CUDA" else "Host" if is_host(backend) else backend

    def _vision_size(self, line: str, word: str, number: str, unit: str) -> None:
        load = self.load
        own = word != "model size:" or "load_hparams" in line or "clip" in line
        kind = ("compute", "compute buffer") if word.startswith("compute") else ("weights", "projector")
        if own:
            self._add(load.tower_device, kind[0], "vision", kind[1], number, unit, load.n_towers)

    def _program(self, line: str) -> None:
        if "no_alloc" in line and re.search(r"no_alloc\s+= 1$", line):
            self.load.probe = True
        elif "Flash Attention" in line or "Flash Attention was auto" in line:
            self.load.settings["flash_attn"] = "enabled" if "enabled" in line else "disabled"
        elif "pipeline parallelism enabled" in line:
            self.load.pipeline = True
        elif "server is listening" in line:
            self.server = True
        elif "mtmd-cli" in line or "mtmd_cli" in line:
            self.vision_cli = True
        elif "fused_moe" in line or "mla_attn" in line:
            self.version = "ik_llama.cpp"
        elif (build := _BUILD.search(line)) is not None and self.version is None:
            self.version = f"b{build[1]}"

    def finish(self) -> Log | None:
        """Return what the last real load was, or None where there was none."""
        load = next((one for one in reversed(self.loads) if one.measured), self.load)
        figures = tuple(load.figures.values()) if load.measured else ()
        figures = self.devices.with_breakdown(figures)
        if not figures:
            return None
        return Log(
            kind="llama.cpp",
            engine="llama.cpp",
            engine_version=self.version or _age(load.settings),
            model=_model(load.model),
            settings=self._settings(load),
            devices=self.devices.listed(figures),
            figures=figures,
            facts={"pipeline_copies": 4} if load.pipeline else {},
            remarks=tuple(self._remarks(load)),
        )

    def _settings(self, load: _Load) -> Mapping[str, object]:
        said = load.settings
        found: dict[str, object] = {"program": self._program_word(said, towers=load.n_towers > 0)}
        for name, key in _KEYS.items():
            if said.get(name, "").isdecimal():
                found[key] = int(said[name])
        for key in ("cache_type_k", "cache_type_v"):
            if key in said:
                found[key] = said[key]
        if "kv_unified" in said or int(str(found.get("parallel", 1))) > 1:
            found["kv_unified"] = said.get("kv_unified", "true") in {"true", "1"}  # one stream before it could be said
        if said.get("flash_attn", "auto") in _FLASH:
            found["flash_attn"] = _FLASH[said["flash_attn"]]
        if load.offloaded is not None:
            n_layers = load.offloaded[0] + load.output_left
            found["n_gpu_layers"] = -1 if n_layers >= load.offloaded[1] else n_layers
        if load.n_towers and load.tower_device == "Host" and any(f.device != "Host" for f in load.figures.values()):
            found["no_mmproj_offload"] = True
        return found

    def _program_word(self, said: Mapping[str, str], *, towers: bool) -> str:
        """Return the program whose outputs this one reserves: builds that do not say so reserve one per token."""
        n_outputs, n_seqs = said.get("n_outputs_max", ""), said.get("n_seq_max", "1")
        if n_outputs.isdecimal() and n_seqs.isdecimal() and int(n_outputs) <= int(n_seqs):
            return "llama-server"
        return "llama-mtmd-cli" if towers or self.vision_cli else "llama-cli"

    def _remarks(self, load: _Load) -> list[str]:
        found = []
        if self.n_loads > 1:
            found.append(f"the log holds {self.n_loads} loads; the last one that allocated memory is compared")
        if self.server and load.measured and "n_outputs_max" not in load.settings:
            found.append("an older server: it reserves logits for every token of a ubatch, as llama-cli does")
        if load.output_left:
            found.append("an older build: it leaves the output layer on the host, today's moves it to the GPU first")
        if load.n_contexts > 1:
            found.append(f"this load has {load.n_contexts} contexts; their figures are added up")
        return found


_KEYS = {"n_ctx": "ctx_size", "n_batch": "batch_size", "n_ubatch": "ubatch_size", "n_seq_max": "parallel"}
_FLASH = {"1": "on", "0": "off", "enabled": "on", "disabled": "off", "on": "on", "off": "off"}


def _age(said: Mapping[str, str]) -> str | None:
    """Return what a context without a build number shows of its age: today's say how many outputs they reserve."""
    return "an older build" if {"n_ctx", "n_ubatch"} <= set(said) and "n_outputs_max" not in said else None


def _model(said: Mapping[str, str]) -> LoggedModel:
    file_type = said.get("file type") or said.get("model ftype")
    layers = said.get("n_layer", "")
    return LoggedModel(
        name=said.get("general.name"),
        file=said.get("file"),
        architecture=said.get("arch"),
        file_type=None if file_type is None else file_type_word(file_type),
        n_layers=int(layers) if layers.isdecimal() and len(layers) < 6 else None,
    )


def file_type_word(text: str) -> str:
    """Return ``Q4_K_M`` for ``Q4_K - Medium``, ``IQ3_XXS`` for ``IQ3_XXS - 3.0625 bpw``, ``F32`` for ``all F32``."""
    sized = _TYPE.match(text)
    if sized is not None:
        return f"{sized[1]}_{sized[2][0]}"
    return text.removeprefix("all ").removeprefix("mostly ").split(" ")[0].split("(")[0]


def as_ollama(log: Log, version: str | None, devices: tuple[LoggedDevice, ...]) -> Log:
    """Return the engine's lines within an Ollama server's log, in Ollama's words."""
    said = log.settings
    found: dict[str, object] = {"num_parallel": said.get("parallel", 1)}
    if isinstance(context := said.get("ctx_size"), int):
        found["num_ctx"] = context // max(1, int(str(found["num_parallel"])))
    for key, own in (("n_gpu_layers", "num_gpu"), ("batch_size", "num_batch")):
        if key in said:
            found[own] = said[key]
    if said.get("cache_type_k") in {"f16", "q8_0", "q4_0"}:
        found["kv_cache_type"] = said["cache_type_k"]
    if "flash_attn" in said:
        found["flash_attention"] = said["flash_attn"] == "on"
    return replace(
        log, kind="ollama", engine="ollama", engine_version=version, settings=found, devices=devices or log.devices
    )
