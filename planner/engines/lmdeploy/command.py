"""What to paste for LMDeploy: the server's command, the same in Python, and as a container."""

from __future__ import annotations

from planner.engines.containers import Container
from planner.engines.engine import Emitted
from planner.engines.lmdeploy.rules import LmdeployRules
from planner.engines.lmdeploy.settings import LmdeploySettings
from planner.engines.options import Options, arguments, command_line
from planner.frozen import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a command depends on beside the request: backend, version, options and rules."""

    backend: str
    version: str
    options: Options
    rules: LmdeployRules


def serve_options(model: Model, workload: Workload, settings: LmdeploySettings, release: Release) -> dict[str, object]:
    """Return the options that differ from the engine's defaults; backend and session length always."""
    defaults = LmdeploySettings()
    length = settings.session_len or workload.context_tokens
    given: dict[str, object] = {"backend": release.backend, "session_len": length}
    for name in release.options:
        value = getattr(settings, name)
        if name not in given and value != getattr(defaults, name):
            given[name] = value
    asks = release.options.get("trust_remote_code")
    if model.family in release.rules.trust_remote_code and asks is not None and asks.in_release(release.version):
        given["trust_remote_code"] = True
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
    tail += ", trust_remote_code=True" if given.get("trust_remote_code") else ""
    imported = f"{name}, VisionConfig, pipeline" if vision else f"{name}, pipeline"
    return (
        f"from lmdeploy import {imported}\n\n"
        f"pipe = pipeline({model.hf_id or model.name!r}, backend_config={engine}{tail})\n"
    )


def emit(model: Model, workload: Workload, settings: LmdeploySettings, release: Release) -> Emitted:
    """Return the server's command line and the Python text."""
    given = serve_options(model, workload, settings, release)
    words = ["lmdeploy", "serve", "api_server", model.hf_id or model.name, *arguments(release.options, given)]
    return Emitted(command=command_line(words), config=python_text(model, given))


def container(model: Model, workload: Workload, settings: LmdeploySettings, release: Release) -> Container:
    """Return the server as a container."""
    given = serve_options(model, workload, settings, release)
    return Container(
        name="lmdeploy",
        image=f"openmmlab/lmdeploy:v{release.version.removeprefix('v')}",
        command=("lmdeploy", "serve", "api_server"),
        arguments=(model.hf_id or model.name, *arguments(release.options, given)),
        port=PORT,
        n_gpus=settings.tp,
        host_bytes=12 * GIB,
    )
