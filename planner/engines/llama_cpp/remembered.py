"""Answers given before: a small memory for functions of one request, which searches ask again and again."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar

from planner.engines.llama_cpp.backend import ROWS_OF_256
from planner.quantization import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from planner.engines.llama_cpp.traits import GraphRequest
    from planner.model import Language

Answer = TypeVar("Answer")
Value = TypeVar("Value")
Rest = ParamSpec("Rest")
SIZE = 2048
_PARTS = ("layers", "facts", "tensors")


def key_of(request: GraphRequest) -> Hashable:
    """Return what a request is told by: the formats of weights matter where host weights are copied to a GPU.

    Elsewhere only their kind does, so the file types of one model share their answers.
    """
    values = tuple(getattr(request, name) for name in request.__slots__ if name not in ("language", "weights"))
    language, host = request.language, request.backends.host
    exact = host in (request.output_device, *request.layer_devices) or _holds_layers(request.weights, host)
    formats = tuple(tensor.format for tensor in language.tensors) if exact else _kinds_of_formats(language)
    return (_structure(language), formats, tuple(request.weights.values()), values)


def _structure(language: Language) -> Hashable:
    """Return what the file types of one model have in common: everything but formats, parts by identity."""
    scalars = tuple(getattr(language, name) for name in language.__slots__ if name not in _PARTS)
    return (id(language.layers), id(language.facts), scalars, _shapes(language))


class Remembered(Generic[Answer]):
    """A function of a request that computes each answer once, as long as it is among the last ``SIZE`` ones."""

    def __init__(self, function: Callable[[GraphRequest], Answer]) -> None:
        """Remember the answers of ``function``."""
        self._function = function
        self._answers: dict[Hashable, tuple[Language, Answer]] = {}

    def __call__(self, request: GraphRequest) -> Answer:
        """Return the answer to ``request``."""
        key = key_of(request)
        known = self._answers.get(key)
        if known is None:
            while len(self._answers) >= SIZE:
                self._answers.pop(next(iter(self._answers)))
            # holding the language keeps its identity from being given to another one
            known = self._answers[key] = request.language, self._function(request)
        return known[1]


def remembered(function: Callable[Concatenate[Value, Rest], Answer]) -> Callable[Concatenate[Value, Rest], Answer]:
    """Let ``function`` keep its last ``SIZE`` answers, its first argument told by identity, the others by value.

    For functions of a language or a tower, which are large and hold mappings. What is returned is shared.
    """
    answers: dict[Hashable, tuple[Value, Answer]] = {}

    @wraps(function)
    def answer(value: Value, /, *rest: Rest.args, **named: Rest.kwargs) -> Answer:
        key = (id(value), rest, *named.items())
        known = answers.get(key)
        if known is None:
            while len(answers) >= SIZE:
                answers.pop(next(iter(answers)))
            # holding the value keeps its identity from being given to another one
            known = answers[key] = value, function(value, *rest, **named)
        return known[1]

    return answer


@remembered
def _holds_layers(weights: Mapping[str, int], host: int) -> bool:
    return any(device == host and name.startswith("blk.") for name, device in weights.items())


@remembered
def _shapes(language: Language) -> Hashable:
    return tuple((tensor.name, tensor.shape) for tensor in language.tensors)


@remembered
def _kinds_of_formats(language: Language) -> Hashable:
    """Return the kind of each tensor's format: all that the rules of a GPU ask (``gpu_supports``)."""
    return tuple(
        "quantized" if FORMATS[tensor.format].quantized and tensor.format not in ROWS_OF_256 else tensor.format
        for tensor in language.tensors
    )
