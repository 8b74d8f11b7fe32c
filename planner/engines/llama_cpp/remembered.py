"""Graphs simulated before: what a request is told by, so that file types and searches share their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from planner.engines.llama_cpp.backend import ROWS_OF_256
from planner.quantization import FORMATS
from planner.remembered import SIZE, remembered

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from planner.engines.llama_cpp.traits import GraphRequest
    from planner.model import Language

Answer = TypeVar("Answer")
_PARTS = ("layers", "facts", "tensors")


def key_of(request: GraphRequest) -> Hashable:
    """Return what a request is told by: its structure and every other setting.

    The formats of weights matter where host weights are copied to a GPU. Elsewhere only their kind does, so the file
    types of one model share their answers.
    """
    return structure_of(request), values_of(request)


def values_of(request: GraphRequest) -> Hashable:
    """Return the settings of a request: everything but its model and the place of the weights."""
    return tuple(getattr(request, name) for name in request.__slots__ if name not in ("language", "weights"))


def kin_of(request: GraphRequest) -> Hashable:
    """Return what is the same for file types of one model that differ in nothing but the kind of block."""
    return _model(request.language, exact=False), _devices(request.weights), values_of(request)


def structure_of(request: GraphRequest) -> Hashable:
    """Return what a request's model, as far as its formats matter, and the place of its weights are told by."""
    exact = request.sends_host_weights and (
        request.backends.host in (request.output_device, *request.layer_devices)
        or _holds_layers(request.weights, request.backends.host)
    )
    return _model(request.language, exact=exact), _devices(request.weights)


class _Hashed:
    """A long value that knows its hash, so that it is not gone through at each question."""

    __slots__ = ("_hash", "value")

    def __init__(self, value: Hashable) -> None:
        self.value = value
        self._hash = hash(value)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Hashed) and self._hash == other._hash and self.value == other.value)

    def __hash__(self) -> int:
        return self._hash


class Remembered(Generic[Answer]):
    """A function of a request that computes each answer once, as long as it is among the last ones."""

    def __init__(
        self,
        function: Callable[[GraphRequest], Answer],
        told_by: Callable[[GraphRequest], Hashable] = key_of,
        size: int = SIZE,
    ) -> None:
        """Remember the last ``size`` answers of ``function``; requests are told apart by what ``told_by`` returns."""
        self._function = function
        self._size = size
        self._told_by = told_by
        self._answers: dict[Hashable, tuple[Language, Answer]] = {}

    def __call__(self, request: GraphRequest) -> Answer:
        """Return the answer to ``request``."""
        key = self._told_by(request)
        known = self._answers.get(key)
        if known is None:
            while len(self._answers) >= self._size:
                self._answers.pop(next(iter(self._answers)))
            # holding the language keeps its identity from being given to another one
            known = self._answers[key] = request.language, self._function(request)
        return known[1]


@remembered
def _model(language: Language, *, exact: bool) -> _Hashed:
    """Return what the file types of one model have in common: everything but formats, parts by identity."""
    scalars = tuple(getattr(language, name) for name in language.__slots__ if name not in _PARTS)
    shapes = tuple((tensor.name, tensor.shape) for tensor in language.tensors)
    formats = tuple(tensor.format for tensor in language.tensors) if exact else _kinds_of_formats(language)
    return _Hashed((id(language.layers), id(language.facts), scalars, shapes, formats))


@remembered
def _devices(weights: Mapping[str, int]) -> _Hashed:
    return _Hashed(tuple(weights.values()))


@remembered
def _holds_layers(weights: Mapping[str, int], host: int) -> bool:
    return any(device == host and name.startswith("blk.") for name, device in weights.items())


def _kinds_of_formats(language: Language) -> tuple[str, ...]:
    """Return the kind of each tensor's format: all that the rules of a GPU ask (``gpu_supports``)."""
    return tuple(
        "quantized" if FORMATS[tensor.format].quantized and tensor.format not in ROWS_OF_256 else tensor.format
        for tensor in language.tensors
    )
