"""The request: what a user wrote in YAML, JSON or on the command line, made into nouns.

One schema serves ``check``, ``batch``, ``estimate`` and the Python API. Everything is strict: unknown keys are
refused, and every message says which key, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Annotated, Any

from planner.advice import Question
from planner.catalog.engines import load_engine
from planner.catalog.quality import quality_table
from planner.engines.engine import Engine
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Machine
from planner.machine_file import machine_of
from planner.model import Model
from planner.placement.objective import Prefer
from planner.sources.opening import open_model
from planner.strict import Between, read_record
from planner.units import align
from planner.vision import has_rule, image_tokens
from planner.workload import ImageSize, Workload, parse_image_size

MAX_TOKENS = 1 << 30
MAX_IMAGES = 10_000
_Count = Annotated[int, Between(1, MAX_TOKENS)]
_Tokens = Annotated[int, Between(0, MAX_TOKENS)]
_Few = Annotated[int, Between(1, 65536)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workload:
    context: _Count | None = None
    sequences: _Few = 1
    images: Annotated[tuple[str, ...], Between(0, MAX_IMAGES)] = ()
    batch: _Few = 1
    prompt_tokens: _Tokens | None = None
    answer_tokens: _Tokens = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    model: str
    projector: str | None = None
    quantization: str | None = None
    engine: str = "llama.cpp"
    engine_version: str | None = None
    machine: dict[str, Any] | None = None
    workload: _Workload = _Workload()
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A request resolved: which model by which engine on which machine, for which load, with which settings.

    ``given`` are the settings the user wrote; what is missing in ``settings`` is the engine's default.
    """

    model: Model
    engine: Engine
    machine: Machine
    workload: Workload
    settings: Any
    given: Mapping[str, object]
    source: str = ""
    projector: str | None = None


DEFAULT_CONTEXT_TOKENS = 4096
DEFAULT_PROMPT_TOKENS = 512


def parse_settings(engine: Engine, given: Mapping[str, object]) -> Any:  # noqa: ANN401 - each engine has its own class
    """Return the engine's settings value for the keys ``given``.

    Raises:
        UsageError: an unknown key or a value of the wrong type, named.
    """
    try:
        return read_record(engine.settings, dict(given), "settings")
    except UsageError as error:
        raise UsageError(f"{engine.name} {error}") from None


def _validated(data: object) -> _Request:
    if not isinstance(data, dict):
        raise UsageError("a request is a mapping with at least the key 'model'")
    try:
        return read_record(_Request, data)
    except UsageError as error:
        raise UsageError(f"request: {error}") from None


def parse_request(data: object, *, machine: Machine | None = None, detect: Callable[[], Machine]) -> Deployment:
    """Return the deployment that a request mapping describes.

    ``machine`` stands in where the request names none; else ``detect()`` is asked once it is needed.

    Raises:
        UsageError: the request is malformed, or names what does not exist.
        SourceError: the model's file cannot be read.
    """
    request = _validated(data)
    engine = load_engine(request.engine, request.engine_version)
    settings = parse_settings(engine, request.settings)
    workload = _workload(request.workload, request.settings)
    model = open_model(
        request.model, engine=engine.name, quantization=request.quantization, projector=request.projector
    )
    there = _machine(request, machine, detect)
    return Deployment(
        model=model,
        engine=_as_measured(engine, there),
        machine=there,
        workload=workload,
        settings=settings,
        given=request.settings,
        source=request.model,
        projector=request.projector,
    )


def _machine(request: _Request, machine: Machine | None, detect: Callable[[], Machine]) -> Machine:
    if request.machine is not None:
        return machine_of(request.machine)
    return machine if machine is not None else detect()


def _as_measured(engine: Engine, machine: Machine) -> Engine:
    """Return the engine with the overhead that was measured on this very machine, where some was kept."""
    from planner.catalog.calibration import calibrated  # noqa: PLC0415 - described machines have none
    from planner.catalog.tables import overhead_table  # noqa: PLC0415

    return engine if machine.simulated else calibrated(engine, machine, overhead_table())


def parse_question(
    data: object, *, prefer: Prefer, machine: Machine | None = None, detect: Callable[[], Machine]
) -> Question:
    """Return what ``recommend`` is asked by a request mapping: what it leaves out is the planner's choice.

    Raises:
        UsageError: the request is malformed, or names what does not exist.
        SourceError: the model's file cannot be read.
    """
    request = _validated(data)
    engine = load_engine(request.engine, request.engine_version)
    first = open_model(
        request.model, engine=engine.name, quantization=request.quantization, projector=request.projector
    )
    context_given = (
        request.workload.context is not None or _context_of(request.settings, request.workload.sequences) is not None
    )
    workload = _workload(request.workload, request.settings)
    if not context_given:
        workload = replace(workload, context_tokens=_default_context(first, workload, engine.name))

    def variant(quantization: str | None) -> Model:
        if quantization is None or quantization == first.quantization:
            return first
        return open_model(request.model, engine=engine.name, quantization=quantization, projector=request.projector)

    there = _machine(request, machine, detect)
    return Question(
        engine=_as_measured(engine, there),
        variant=variant,
        quantizations=_quantizations(first, request.quantization),
        workload=workload,
        machine=there,
        settings=parse_settings(engine, request.settings),
        given=frozenset(request.settings),
        context_given=context_given,
        quality=quality_table(),
        prefer=prefer,
    )


OFFERED = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")


def _quantizations(model: Model, given: str | None) -> tuple[str | None, ...]:
    """Return the file types to compare: the one given, that of a file, or those that people publish of this model."""
    if given is not None or model.source.endswith(".gguf"):
        return (model.quantization,)
    return offered(model) if model.quantization is not None else (None,)


def offered(model: Model) -> tuple[str, ...]:
    """Return the file types ``model`` is to be had in, best first."""
    return model.file_types or OFFERED


def _default_context(model: Model, workload: Workload, engine: str) -> int:
    """Return the context to plan for when none was asked: 8192 tokens, or more where images, prompt and answer need it.

    Never more than the model was trained for. Where this engine has no rule for the images they are left out here: what
    that means for the plan is said once the engine has been asked whether it loads the model.
    """
    trained = model.language.n_context_train or DEFAULT_CONTEXT_TOKENS
    needed = workload.prompt_tokens + workload.answer_tokens
    if model.vision is not None and has_rule(model.vision, engine):
        counted = [image_tokens(model.vision, image, engine) for image in workload.images]
        needed += sum(image.tokens + image.extra_tokens for image in counted)
    return min(trained, max(2 * DEFAULT_CONTEXT_TOKENS, align(needed, 1024)))


def _workload(given: _Workload, settings: Mapping[str, object]) -> Workload:
    context, room = given.context, _context_of(settings, given.sequences)
    if context is not None and room is not None and context > align(room, 256):  # llama.cpp rounds up to that
        raise UsageError(
            f"request: workload.context is {context}, but the settings leave one sequence {room} tokens; "
            "raise those or lower the context"
        )
    for key in _SLOTS:
        slots = settings.get(key)
        if isinstance(slots, int) and 0 < slots < given.sequences:
            raise UsageError(
                f"request: workload.sequences is {given.sequences}, but settings.{key} lets {slots} run at once; "
                "raise it or lower the sequences"
            )
    if context is None:
        context = room or DEFAULT_CONTEXT_TOKENS
    return Workload(
        context_tokens=context,
        sequences=given.sequences,
        images=parse_images(given.images),
        batch=given.batch,
        prompt_tokens=DEFAULT_PROMPT_TOKENS if given.prompt_tokens is None else given.prompt_tokens,
        prompt_asked=given.prompt_tokens is not None,
        answer_tokens=given.answer_tokens,
    )


_SLOTS = ("parallel", "num_parallel", "max_num_seqs", "max_running_requests", "max_batch_size")


def _context_of(settings: Mapping[str, object], sequences: int) -> int | None:
    """Return the context one sequence gets from the engine's own words, where they say it."""
    for key in ("ctx_size", "max_model_len", "context_length", "session_len", "num_ctx"):
        value = settings.get(key)
        if isinstance(value, int) and value > 0:
            shared = key == "ctx_size" and not settings.get("kv_unified")
            parallel = settings.get("parallel", sequences) if shared else 1
            return max(1, value // parallel) if isinstance(parallel, int) and parallel > 0 else value
    return None


def parse_images(texts: list[str] | tuple[str, ...]) -> tuple[ImageSize, ...]:
    """Return image sizes; ``3x1920x1080`` is not read, but ``1920x1080:3`` means three of that size.

    Raises:
        UsageError: a malformed size or count.
    """
    images: list[ImageSize] = []
    for text in texts:
        size, _, count = text.partition(":")
        if count and not (count.isascii() and count.isdigit() and 0 < int(count[:9]) <= MAX_IMAGES):
            raise UsageError(f"image {text!r}: the count after ':' must be between 1 and {MAX_IMAGES}")
        images += [parse_image_size(size)] * (int(count) if count else 1)
        if len(images) > MAX_IMAGES:
            raise UsageError(f"more than {MAX_IMAGES} images in one request")
    return tuple(images)


def reopened(deployment: Deployment, quantization: str) -> Model:
    """Return the deployment's model in another file type."""
    return open_model(
        deployment.source,
        engine=deployment.engine.name,
        quantization=quantization,
        projector=deployment.projector,
    )


def with_settings(deployment: Deployment, **changes: object) -> Deployment:
    """Return the deployment with some settings replaced."""
    return replace(
        deployment,
        settings=replace(deployment.settings, **changes),
        given={**deployment.given, **changes},
    )
