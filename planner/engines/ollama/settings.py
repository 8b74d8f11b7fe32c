"""Ollama's words: Modelfile parameters, and its environment variables without their prefix in small letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from planner.engines.options import Options
from planner.errors import UsageError
from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaSettings:
    """``num_gpu`` counts layers, -1 leaves them to the engine; ``gpu_overhead`` is in bytes per GPU."""

    num_ctx: int | None = None
    num_gpu: int = -1
    num_batch: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    flash_attention: bool | None = None
    kv_cache_type: Literal["f16", "q8_0", "q4_0"] = "f16"
    num_parallel: int | None = None
    context_length: int | None = None
    sched_spread: bool = False
    gpu_overhead: int = 0


ENVIRONMENT = ("flash_attention", "kv_cache_type", "num_parallel", "context_length", "sched_spread", "gpu_overhead")
PARAMETERS = ("num_ctx", "num_gpu", "num_batch", "main_gpu", "use_mmap")


@dataclass(frozen=True, slots=True, kw_only=True)
class OllamaRules:
    """Lists read from ``profiles/engines/ollama.yaml``, by the architecture word of the GGUF file."""

    one_slot: Mapping[str, str] = field(default_factory=dict)
    image_floor: frozenset[str] = frozenset()
    inline_vision: frozenset[str] = frozenset()
    flash_attention_before: frozenset[str] = frozenset()
    llama_cpp: Mapping[str, str] = field(default_factory=dict)
    options: Options = field(default_factory=dict)


def ollama_rules(data: Mapping[str, Any], options: Options) -> OllamaRules:
    """Return the rules that ``profiles/engines/ollama.yaml`` holds."""
    return OllamaRules(
        one_slot=data["one_slot"],
        image_floor=frozenset(data["image_floor"]),
        inline_vision=frozenset(data["inline_vision"]),
        flash_attention_before=frozenset(data["flash_attention_before"]),
        llama_cpp=data["llama_cpp"],
        options=options,
    )


def check_settings(settings: OllamaSettings) -> None:
    """Refuse values that can mean nothing.

    Raises:
        UsageError: one line naming the parameter, its value and what is allowed.
    """
    for name in ("num_ctx", "num_batch", "num_parallel", "context_length"):
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= 1 << 30:
            raise UsageError(f"{name} {value}: must be at least 1")
    if not -1 <= settings.num_gpu <= 1 << 20:
        raise UsageError(f"num_gpu {settings.num_gpu}: layers on the GPU, or -1 for the engine's choice")
    if not 0 <= settings.gpu_overhead <= 1 << 50:
        raise UsageError(f"gpu_overhead {settings.gpu_overhead}: bytes to leave free per GPU, 0 or more")
