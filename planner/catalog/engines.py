"""Engines as values: code and data put together, each loaded when it is asked for."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from planner.catalog.data import load_data
from planner.engines.engine import Engine, Support
from planner.errors import UsageError
from planner.model import Model

if TYPE_CHECKING:
    from planner.engines.llama_cpp.engine import LlamaCppData

ENGINES = ("llama.cpp", "ollama", "transformers", "vllm", "sglang", "lmdeploy", "measured")
_ALIASES = {
    "llamacpp": "llama.cpp",
    "llama-cpp": "llama.cpp",
    "llama_cpp": "llama.cpp",
    "llama-server": "llama.cpp",
    "hf": "transformers",
    "onnxruntime": "measured",
    "lmdeploy-turbomind": "lmdeploy",
}


def engine_name(word: str) -> str:
    """Return the engine that ``word`` means.

    Raises:
        UsageError: no such engine.
    """
    key = word.strip().casefold()
    name = _ALIASES.get(key, key)
    if name not in ENGINES:
        raise UsageError(f"unknown engine {word[:60]!r}; known: {', '.join(ENGINES)}")
    return name


@cache
def load_engine(word: str, version: str | None = None) -> Engine:
    """Return the engine called ``word`` at ``version`` (default: the newest one modelled).

    Raises:
        UsageError: no such engine, or no such version.
    """
    name = engine_name(word)
    if name == "llama.cpp":
        return _llama_cpp(version)
    raise UsageError(f"{name} is not modelled yet")


def _llama_cpp(version: str | None) -> Engine:
    from planner.engines.llama_cpp.engine import budget  # noqa: PLC0415 - one engine at a time
    from planner.engines.llama_cpp.flags import emit  # noqa: PLC0415
    from planner.engines.llama_cpp.settings import LlamaCppSettings  # noqa: PLC0415

    return Engine(
        name="llama.cpp",
        version=version or "0.5",
        settings=LlamaCppSettings,
        loads=partial(_loads, "llama.cpp", version),
        budget=partial(budget, llama_cpp_data()),
        emit=emit,
    )


@cache
def llama_cpp_data() -> LlamaCppData:
    """Return llama.cpp's tables: graphs, encoders, overhead."""
    from planner.engine_tables import overhead_table  # noqa: PLC0415
    from planner.engines.llama_cpp.encoder.kinds import encoder_kinds  # noqa: PLC0415
    from planner.engines.llama_cpp.engine import LlamaCppData  # noqa: PLC0415
    from planner.engines.llama_cpp.traits import traits_from  # noqa: PLC0415

    graphs = load_data("engines/llama_cpp/graphs.yaml")["architectures"]
    return LlamaCppData(
        traits={word: traits_from(entry) for word, entry in graphs.items()},
        encoders=encoder_kinds(load_data("engines/llama_cpp/encoders.yaml")),
        overhead=overhead_table(),
    )


def _loads(engine: str, version: str | None, model: Model) -> Support:
    from planner.engines.support import loads, support_table  # noqa: PLC0415

    tables = {name: support_table(load_data(f"engines/support/{name}.yaml")) for name in _SUPPORT_TABLES}
    return loads(
        tables,
        engine,
        family=model.family,
        architecture_class=model.architecture_class,
        gguf_architecture=model.language.architecture,
        version=version,
    )


_SUPPORT_TABLES = (
    "llama.cpp",
    "ollama",
    "vllm",
    "sglang",
    "lmdeploy-turbomind",
    "lmdeploy-pytorch",
    "transformers",
    "mlx-vlm",
)
