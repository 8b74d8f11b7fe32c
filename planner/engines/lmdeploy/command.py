"""What to paste for LMDeploy: the server's command, the same in Python, and as a container."""

from __future__ import annotations

from planner.engines.containers import Container
from planner.engines.engine import Emitted
from planner.engines.lmdeploy.settings import LmdeploySettings
from planner.engines.options import Options, arguments, command_line
from planner.model import Model
from planner.units import GIB
from planner.workload import Workload

PORT = 23333
_ENGINE_WORDS = (
    "dtype",
    "model_format",
    "tp",
    "session_len",
    "max_batch_size",
    "cache_max_entry_count",
    "quant_policy",
    "max_prefill_token_num",
    "enable_prefix_caching",
)
_BLOCK_WORD = {"turbomind": "cache_block_seq_len", "pytorch": "block_size"}


def serve_options(workload: Workload, settings: LmdeploySettings, backend: str, options: Options) -> dict[str, object]:
    """Return the options that differ from the engine's defaults; backend and session length always."""
    defaults = LmdeploySettings()
    given: dict[str, object] = {"backend": backend, "session_len": settings.session_len or workload.context_tokens}
    for name in options:
        value = getattr(settings, name)
        if name not in given and value != getattr(defaults, name):
            given[name] = value
    return given


def python_text(model: Model, given: dict[str, object]) -> str:
    """Return the same start in Python, as LMDeploy's own pipeline takes it."""
    backend = str(given["backend"])
    name = "PytorchEngineConfig" if backend == "pytorch" else "TurbomindEngineConfig"
    words = {key: given[key] for key in _ENGINE_WORDS if key in given}
    if "cache_block_seq_len" in given:
        words[_BLOCK_WORD[backend]] = given["cache_block_seq_len"]
    engine = f"{name}({', '.join(f'{key}={value!r}' for key, value in words.items())})"
    vision = given.get("vision_max_batch_size")
    tail = f", vision_config=VisionConfig(max_batch_size={vision})" if vision else ""
    imported = f"{name}, VisionConfig, pipeline" if vision else f"{name}, pipeline"
    return (
        f"from lmdeploy import {imported}\n\n"
        f"pipe = pipeline({model.hf_id or model.name!r}, backend_config={engine}{tail})\n"
    )


def emit(model: Model, workload: Workload, settings: LmdeploySettings, backend: str, options: Options) -> Emitted:
    """Return the server's command line and the Python text."""
    given = serve_options(workload, settings, backend, options)
    words = ["lmdeploy", "serve", "api_server", model.hf_id or model.name, *arguments(options, given)]
    return Emitted(command=command_line(words), config=python_text(model, given))


def container(  # noqa: PLR0913 - one container's circumstances
    model: Model, workload: Workload, settings: LmdeploySettings, backend: str, version: str, options: Options
) -> Container:
    """Return the server as a container."""
    given = serve_options(workload, settings, backend, options)
    return Container(
        name="lmdeploy",
        image=f"openmmlab/lmdeploy:v{version.removeprefix('v')}",
        command=("lmdeploy", "serve", "api_server"),
        arguments=(model.hf_id or model.name, *arguments(options, given)),
        port=PORT,
        n_gpus=settings.tp,
        host_bytes=12 * GIB,
    )
