"""vLLM's start: weights, profile of the peak, the cache's pool, captured graphs, by rank.

Formats: vLLM 0.5 to 0.33 (``worker/worker.py``, ``v1/worker/gpu_worker.py``, ``gpu_model_runner.py``,
``v1/core/kv_cache_utils.py``). Releases before 0.8.5 write "GB" and divide by 2^30 as the later ones do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from planner.logs.found import Figure, Log, LoggedDevice, LoggedModel, printed

_RANK = re.compile(r"\((?:VllmWorker\w* rank=|VllmWorkerProcess\D{1,20}|Worker_TP|Worker_PP)(\d{1,3})(?:_TP(\d{1,3}))?")
_AMOUNT = r"(-?\d{1,6}(?:\.\d{1,6})?) ?(GiB|GB|MiB)"
_TERMS = tuple(
    (mark, re.compile(pattern + _AMOUNT), component, part, term)
    for mark, pattern, component, part, term in (
        ("oading", r"(?:Model loading|Loading model weights|Loading model) took ", "weights", "all", "model loading"),
        ("weights take", r"model weights take ", "weights", "all", "model loading"),
        ("non_torch_memory", r"non_torch_memory takes ", "overhead", "all", "non-torch"),
        ("activation peak", r"PyTorch activation peak memory takes ", "compute", "all", "activation peak"),
        ("Available KV cache", r"Available KV cache memory: ", "kv_cache", "all", "KV pool"),
        ("reserved for KV", r"reserved for KV Cache is ", "kv_cache", "all", "KV pool"),
        (
            "raph capturing",
            r"Graph capturing finished in \d{1,6}(?:\.\d+)? secs?, took ",
            "overhead",
            "all",
            "CUDA graphs",
        ),
    )
)
_TOTAL = re.compile(r"total_gpu_memory \((\d{1,6}\.\d{1,4})GiB\)\s*x gpu_memory_utilization \((\d\.\d{1,4})\)")
_TOKENS = re.compile(r"GPU KV cache size: ([\d,]{1,20}) tokens")
_BLOCKS = re.compile(r"# (?:GPU|cuda) blocks: (\d{1,12})")
_CONCURRENCY = re.compile(r"Maximum concurrency for ([\d,]{1,15}) tokens per request: (\d{1,9}\.\d{1,3})x")
_CONFIG = re.compile(r"Initializing (?:an? )?(?:V\d )?LLM engine \(v(\d[\w.+-]{0,40})\)")
_ENCODER = re.compile(r"[Ee]ncoder cache will be initialized with a budget of ([\d,]{1,15}) tokens")
_OPTION = re.compile(
    r"\b(model|dtype|max_seq_len|tensor_parallel_size|pipeline_parallel_size|quantization|kv_cache_dtype|enforce_eager)"
    r"=('[^']{0,300}'|[\w./-]{1,100})"
)
_BATCH = re.compile(r"max_num_batched_tokens[=: ]+(\d{1,9})")
_SERVED = re.compile(
    r"'(gpu_memory_utilization|max_num_seqs|max_num_batched_tokens|max_model_len)': (\d{1,9}(?:\.\d{1,6})?)"
)


@dataclass(slots=True)
class VllmReader:
    """Reads line by line; ``finish`` returns what was found, or None."""

    version: str | None = None
    model: str | None = None
    settings: dict[str, object] = field(default_factory=dict)
    figures: dict[tuple[str, str], Figure] = field(default_factory=dict)
    facts: dict[str, int | str] = field(default_factory=dict)
    total_bytes: int | None = None

    def feed(self, line: str) -> None:
        """Take one line."""
        for mark, pattern, component, part, term in _TERMS:
            if mark in line and (amount := pattern.search(line)):
                self._add(_device(line), component, part, term, *amount.groups())
        if "KV cache size" in line and (tokens := _TOKENS.search(line)):
            self.facts["kv_tokens"] = _whole(tokens[1])
        elif "blocks: " in line and (blocks := _BLOCKS.search(line)):
            self.facts["gpu_blocks"] = int(blocks[1])
        elif "Maximum concurrency" in line and (many := _CONCURRENCY.search(line)):
            self.facts["max_concurrency"] = many[2]
            self.settings.setdefault("max_model_len", _whole(many[1]))
        elif "ncoder cache will" in line and (encoder := _ENCODER.search(line)):
            self.facts["encoder_budget_tokens"] = _whole(encoder[1])
        elif "LLM engine (v" in line and (config := _CONFIG.search(line)):
            self._config(config[1], line)
        elif "max_num_batched_tokens" in line or "non-default args" in line:
            self._served(line)
        if "total_gpu_memory" in line and (total := _TOTAL.search(line)):
            self.total_bytes = printed(total[1], "GiB")[0]
            self.settings["gpu_memory_utilization"] = float(total[2])

    def _add(self, device: str, component: str, part: str, term: str, number: str, unit: str) -> None:  # noqa: PLR0913 - the parts of a figure
        if len(self.figures) > 4096 or (
            term == "model loading" and (device, term) in self.figures and "." not in number
        ):
            return
        n_bytes, low, high = printed(number, unit)
        known = self.figures.get((device, term))
        if known is not None and known.high_bytes - known.low_bytes <= high - low and term == "model loading":
            return  # the profile repeats it with fewer digits
        self.figures[device, term] = Figure(
            device=device,
            component=component,  # type: ignore[arg-type] # a word of the budget
            part=part,  # type: ignore[arg-type] # same
            term=term,
            n_bytes=n_bytes,
            low_bytes=low,
            high_bytes=high,
            moment="peak" if component == "compute" else "load",
        )

    def _config(self, version: str, line: str) -> None:
        self.version = version
        said = {key: value.strip("'") for key, value in _OPTION.findall(line)}
        self.model = said.get("model", self.model)
        for key in ("tensor_parallel_size", "pipeline_parallel_size"):
            if said.get(key, "").isdecimal():
                self.settings[key] = int(said[key])
        if said.get("max_seq_len", "").isdecimal():
            self.settings["max_model_len"] = int(said["max_seq_len"])
        if said.get("kv_cache_dtype", "auto") != "auto":
            self.settings["kv_cache_dtype"] = said["kv_cache_dtype"]
        if said.get("quantization", "None") != "None":
            self.settings["quantization"] = said["quantization"]
        if said.get("enforce_eager") == "True":
            self.settings["enforce_eager"] = True

    def _served(self, line: str) -> None:
        for key, value in _SERVED.findall(line):
            self.settings[key] = float(value) if key == "gpu_memory_utilization" else int(float(value))
        if (batch := _BATCH.search(line)) is not None:
            self.settings["max_num_batched_tokens"] = int(batch[1])

    def finish(self) -> Log | None:
        """Return the start that was read, or None where the log has nothing of vLLM."""
        if not self.figures and not {"kv_tokens", "gpu_blocks"} & set(self.facts):
            return None
        ranks = sorted({figure.device for figure in self.figures.values()}) or ["CUDA0"]
        return Log(
            kind="vllm",
            engine="vllm",
            engine_version=self.version,
            model=LoggedModel(name=self.model),
            settings=self.settings,
            devices=tuple(LoggedDevice(device=rank, total_bytes=self.total_bytes) for rank in ranks),
            figures=tuple(self.figures.values()),
            facts=self.facts,
        )


def _whole(text: str) -> int:
    return int(text.replace(",", "") or 0)


def _device(line: str) -> str:
    rank = _RANK.search(line)
    return "CUDA0" if rank is None else f"CUDA{int(rank[2] or rank[1])}"
