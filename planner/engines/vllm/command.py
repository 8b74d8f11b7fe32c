"""What to paste for vLLM: the command, and the same as a container."""

from __future__ import annotations

from planner.engines.containers import Container, compose_file
from planner.engines.engine import Emitted
from planner.engines.options import Options, arguments, command_line
from planner.engines.vllm.rules import VllmRules
from planner.engines.vllm.settings import VllmSettings, release_of
from planner.engines.weight_formats import load_word
from planner.model import Model
from planner.units import GIB
from planner.workload import Workload

PORT = 8000


def serve_options(
    model: Model, workload: Workload, settings: VllmSettings, options: Options, rules: VllmRules
) -> dict[str, object]:
    """Return the options that differ from the engine's defaults, the context always among them."""
    defaults = VllmSettings()
    given: dict[str, object] = {"max_model_len": settings.max_model_len or workload.context_tokens}
    for name in options:
        value = getattr(settings, name)
        if name not in given and value != getattr(defaults, name):
            given[name] = value
    if settings.quantization is None and load_word(model):
        given["quantization"] = load_word(model)
    if model.family in rules.trust_remote_code:
        given["trust_remote_code"] = True
    if len(workload.images) > 1 and settings.limit_mm_per_prompt is None:
        given["limit_mm_per_prompt"] = {"image": len(workload.images)}
    return given


def serve_arguments(  # noqa: PLR0913 - one command's circumstances
    model: Model, workload: Workload, settings: VllmSettings, version: str, options: Options, rules: VllmRules
) -> list[str]:
    """Return the words after ``vllm serve``."""
    given = serve_options(model, workload, settings, options, rules)
    limits = given.get("limit_mm_per_prompt")
    if isinstance(limits, dict) and release_of(version) < (0, 9):
        given["limit_mm_per_prompt"] = ",".join(f"{kind}={n}" for kind, n in limits.items())
    return [model.hf_id or model.name, *arguments(options, given)]


def container(  # noqa: PLR0913 - one command's circumstances
    model: Model, workload: Workload, settings: VllmSettings, version: str, options: Options, rules: VllmRules
) -> Container:
    """Return the server as a container: offloaded weights, swap and caches are what it wants of host memory."""
    n_gpus = settings.tensor_parallel_size * settings.pipeline_parallel_size
    host_gib = 12 + int(settings.cpu_offload_gb * n_gpus) + int(settings.swap_space or 0) * n_gpus
    return Container(
        name="vllm",
        image=f"vllm/vllm-openai:v{version.removeprefix('v')}",
        arguments=("--model", *serve_arguments(model, workload, settings, version, options, rules)),
        port=PORT,
        n_gpus=n_gpus,
        host_bytes=host_gib * GIB,
    )


def emit(  # noqa: PLR0913 - one command's circumstances
    model: Model, workload: Workload, settings: VllmSettings, version: str, options: Options, rules: VllmRules
) -> Emitted:
    """Return the command line and a compose file."""
    words = serve_arguments(model, workload, settings, version, options, rules)
    boxed = container(model, workload, settings, version, options, rules)
    return Emitted(command=command_line(["vllm", "serve", *words]), config=compose_file(boxed))
