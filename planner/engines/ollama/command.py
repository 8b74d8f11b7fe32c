"""What to paste for Ollama: the environment of the server, a Modelfile, the same as options of the API."""

from __future__ import annotations

import json

from planner.engines.containers import Container
from planner.engines.engine import Emitted
from planner.engines.ollama.settings import ENVIRONMENT, PARAMETERS, OllamaSettings
from planner.engines.options import Options
from planner.model import Model
from planner.units import GIB
from planner.workload import Workload

PORT = 11434


def parameters(settings: OllamaSettings, num_ctx: int, num_gpu: int | None = None) -> dict[str, object]:
    """Return the Modelfile parameters: the context always, the others where they differ from the default."""
    defaults = OllamaSettings()
    given = {name: getattr(settings, name) for name in PARAMETERS if getattr(settings, name) != getattr(defaults, name)}
    found: dict[str, object] = {"num_ctx": num_ctx} | {k: v for k, v in given.items() if k != "num_ctx"}
    return found | ({"num_gpu": num_gpu} if num_gpu is not None else {})


def environment(settings: OllamaSettings, options: Options) -> dict[str, str]:
    """Return the server's environment variables that differ from the default."""
    defaults = OllamaSettings()
    changed = [name for name in ENVIRONMENT if getattr(settings, name) != getattr(defaults, name)]
    return {options[name].flag: _word(getattr(settings, name)) for name in changed}


def _word(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def modelfile(model: Model, given: dict[str, object]) -> str:
    """Return a Modelfile; the file is named where the model was read from one, else its name stands for a tag."""
    origin = model.source if model.source.endswith(".gguf") else model.ollama_tag or model.name
    lines = [f"FROM {origin}"]
    if model.projector_source.endswith(".gguf"):
        lines.append(f"FROM {model.projector_source}")
    lines += [f"PARAMETER {name} {str(value).lower()}" for name, value in given.items()]
    return "\n".join([*lines, ""])


def api_options(given: dict[str, object]) -> str:
    """Return the same parameters as the ``options`` of a request."""
    return json.dumps({"options": given})


def emit(model: Model, workload: Workload, settings: OllamaSettings, options: Options, num_ctx: int) -> Emitted:  # noqa: ARG001 - the protocol's
    """Return the commands that make and run the model, and the Modelfile with the API's options as its last comment."""
    given = parameters(settings, num_ctx)
    words = "".join(f"{name}={value} " for name, value in environment(settings, options).items())
    tag = "".join(c if c.isalnum() or c in ".-_" else "-" for c in model.name).lower() or "model"
    command = f"{words}ollama serve & ollama create {tag}-planned -f Modelfile && ollama run {tag}-planned"
    return Emitted(command=command, config=f"{modelfile(model, given)}# per request: {api_options(given)}\n")


def container(settings: OllamaSettings, version: str, options: Options, n_gpus: int) -> Container:
    """Return the server as a container."""
    return Container(
        name="ollama",
        image=f"ollama/ollama:{version.removeprefix('v')}",
        arguments=(),
        port=PORT,
        n_gpus=n_gpus,
        host_bytes=16 * GIB,
        environment=tuple(environment(settings, options).items()),
        cache_path="/root/.ollama",
    )
