"""Engines as values: code and data put together, each loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from planner.catalog.data import load_data
from planner.catalog.lazily import Lazily
from planner.engines.engine import Engine, Support
from planner.engines.versions import parse_version
from planner.errors import UsageError
from planner.model import Model

if TYPE_CHECKING:
    from planner.engines.llama_cpp.engine import LlamaCppData
    from planner.engines.support import SupportTable

LLAMA_CPP_VERSION = "0.5"
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
_ALIASES = {
    "llamacpp": "llama.cpp",
    "llama-cpp": "llama.cpp",
    "llama_cpp": "llama.cpp",
    "llama-server": "llama.cpp",
    "hf": "transformers",
    "onnxruntime": "measured",
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
    if version is not None:
        parse_version(version)
    name = engine_name(word)
    return _guarded(_FACTORIES[name](version)) if name in _NEEDS_A_CAPABILITY else _FACTORIES[name](version)


def _guarded(engine: Engine) -> Engine:
    from planner.engines.capabilities import capability_rules, guarded  # noqa: PLC0415 - only engines that ask for one

    return guarded(engine, capability_rules(load_data("engines/capabilities.yaml"), engine.name))


def engine_version(word: str) -> str:
    """Return the version that is planned for when none is named."""
    return load_engine(word).version


@cache
def support_tables() -> Mapping[str, SupportTable]:
    """Return what each engine's releases load."""
    from planner.engines.support import support_table  # noqa: PLC0415 - one engine at a time

    return Lazily(_SUPPORT_TABLES, lambda engine: support_table(load_data(f"engines/support/{engine}.yaml")))


@cache
def llama_cpp_data() -> LlamaCppData:
    """Return llama.cpp's tables: graphs, encoders, overhead."""
    from planner.catalog.tables import overhead_table  # noqa: PLC0415 - one engine at a time
    from planner.engines.llama_cpp.encoder.kinds import encoder_kinds  # noqa: PLC0415
    from planner.engines.llama_cpp.engine import LlamaCppData  # noqa: PLC0415
    from planner.engines.llama_cpp.traits import traits_from  # noqa: PLC0415

    graphs = load_data("engines/llama_cpp/graphs.yaml")["architectures"]
    projectors = load_data("engines/llama_cpp/encoders.yaml")["projectors"]
    return LlamaCppData(
        traits=Lazily(graphs, lambda word: traits_from(graphs[word])),
        encoders=Lazily(projectors, lambda word: encoder_kinds({"projectors": {word: projectors[word]}})[word]),
        overhead=overhead_table(),
    )


def _loads(engine: str, version: str | None, model: Model) -> Support:
    from planner.engines.support import loads  # noqa: PLC0415

    return loads(
        support_tables(),
        engine,
        family=model.family,
        architecture_class=model.architecture_class,
        gguf_architecture=model.language.architecture,
        version=version,
    )


def _llama_cpp(version: str | None) -> Engine:
    from planner.engines.llama_cpp.engine import budget, peaks  # noqa: PLC0415 - one engine at a time
    from planner.engines.llama_cpp.flags import emit  # noqa: PLC0415
    from planner.engines.llama_cpp.older_builds import is_older  # noqa: PLC0415
    from planner.engines.llama_cpp.settings import LlamaCppSettings  # noqa: PLC0415

    data = replace(llama_cpp_data(), older_build=is_older(version))
    return Engine(
        name="llama.cpp",
        version=version or LLAMA_CPP_VERSION,
        settings=LlamaCppSettings,
        loads=partial(_loads, "llama.cpp", version),
        budget=partial(budget, data),
        emit=emit,
        peaks=partial(peaks, data),
    )


def _vllm(version: str | None) -> Engine:
    from planner.catalog.tables import overhead_table  # noqa: PLC0415 - one engine at a time
    from planner.engines.vllm import vllm_engine  # noqa: PLC0415

    rules, options = load_data("engines/vllm.yaml"), load_data("engines/options/vllm.yaml")
    return vllm_engine(version, support_tables(), rules, options, overhead_table())


def _lmdeploy(version: str | None) -> Engine:
    from planner.catalog.tables import overhead_table  # noqa: PLC0415 - one engine at a time
    from planner.engines.lmdeploy import lmdeploy_engine  # noqa: PLC0415

    rules, options = load_data("engines/lmdeploy.yaml"), load_data("engines/options/lmdeploy.yaml")
    return lmdeploy_engine(version, support_tables(), rules, options, overhead_table())


def _ollama(version: str | None) -> Engine:
    from planner.engines.ollama import ollama_engine  # noqa: PLC0415 - one engine at a time

    rules, options = load_data("engines/ollama.yaml"), load_data("engines/options/ollama.yaml")
    return ollama_engine(version, support_tables(), rules, options, load_engine("llama.cpp").budget)


def _transformers(version: str | None) -> Engine:
    from planner.catalog.tables import overhead_table  # noqa: PLC0415 - one engine at a time
    from planner.engines.transformers import transformers_engine  # noqa: PLC0415

    moments = load_data("engines/transformers/moments.yaml")
    return transformers_engine(version, support_tables(), moments, overhead_table())


def _sglang(version: str | None) -> Engine:
    from planner.catalog.tables import overhead_table  # noqa: PLC0415 - one engine at a time
    from planner.engines.sglang import sglang_engine  # noqa: PLC0415

    rules, options = load_data("engines/sglang.yaml"), load_data("engines/options/sglang.yaml")
    return sglang_engine(version, support_tables(), rules, options, overhead_table())


def _measured(version: str | None) -> Engine:
    from planner.engines.measured import measured_engine  # noqa: PLC0415 - one engine at a time

    return measured_engine(version)


_FACTORIES: Mapping[str, Callable[[str | None], Engine]] = {
    "llama.cpp": _llama_cpp,
    "ollama": _ollama,
    "transformers": _transformers,
    "vllm": _vllm,
    "sglang": _sglang,
    "lmdeploy": _lmdeploy,
    "measured": _measured,
}
ENGINES = tuple(_FACTORIES)
_NEEDS_A_CAPABILITY = frozenset({"transformers", "vllm", "lmdeploy"})
COMPARED = tuple(name for name in ENGINES if name != "measured")  # in the order they are tried
