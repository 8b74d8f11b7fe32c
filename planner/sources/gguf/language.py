"""A GGUF header of a language model becomes ``Language``; what is not understood is said, not guessed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.catalog.architectures import architecture_facts, layer_rules
from planner.errors import SourceError
from planner.model import Language, Tensor
from planner.sources.gguf.keys import MAX_LAYERS, Keys, keys_of
from planner.sources.gguf.layers import Block, Reading, window_tokens
from planner.tensors import layer_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.model import Layer, Number
    from planner.sources.gguf.file import GgufFile

_RECURRENT = ("ssm_in.weight", "ssm_alpha.weight", "ssm_ba.weight", "ssm_conv1d_q.weight", "shortconv.conv.weight")
_SPARED = frozenset({"attn_k.weight", "attn_v.weight", "attn_k_norm.weight"})  # where another layer's cache is read
_ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def language_from_gguf(file: GgufFile) -> Language:
    """Return the language model of ``file``.

    The tensors are exactly those stored. ``layers`` is empty where the architecture, or one of its layers, is of no
    known kind; ``facts["unknown"]`` then says why.

    Raises:
        SourceError: the file has no language model, or keys without which nothing can be said.
    """
    architecture = file.architecture
    if architecture in ("", "clip"):
        raise SourceError(f"{file.name}: holds no language model (general.architecture is {architecture!r})")
    keys = keys_of(file, architecture)
    n_stored = keys.integer("block_count")
    if not 0 < n_stored <= MAX_LAYERS:
        raise SourceError(f"{file.name}: {n_stored} layers are not plausible")
    n_mtp = keys.integer("nextn_predict_layers", 0)
    if n_mtp >= n_stored:
        raise SourceError(f"{file.name}: {n_mtp} of {n_stored} layers cannot be for multi-token prediction")
    tensors = tuple(Tensor(name=t.name, shape=t.shape, format=t.format) for t in file.tensors)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    blocks = _blocks(shapes, n_stored)
    layers, unknown = _layers(architecture, keys, blocks, n_stored - n_mtp)
    language = Language(
        architecture=architecture,
        n_embd=keys.integer("embedding_length"),
        n_vocab=_n_vocab(file, keys, shapes),
        n_context_train=keys.integer("context_length"),
        layers=layers,
        tied_embeddings="output.weight" not in shapes,
        n_mtp_layers=n_mtp,
        n_deepstack_layers=_n_deepstack(keys),
        n_embd_per_layer=keys.integer("embedding_length_per_layer_input", 0),
        rope_factors=tuple(shapes[name][0] for name in _ROPE_FACTORS if name in shapes),
        facts=_facts(architecture, keys, shapes, unknown),
        tensors=tensors,
    )
    strange = _unexplained(language, blocks)
    return replace(language, layers=(), facts={**language.facts, "unknown": strange}) if strange else language


def _n_deepstack(keys: Keys) -> int:
    """Return how many sets of vision features there are: a number, or what the layers' mapping names."""
    mapping = keys.facts().get("deepstack_mapping")
    named = len({part for part in mapping if part >= 0}) if isinstance(mapping, tuple) else 0
    return keys.integer("n_deepstack_layers", named)


def _n_vocab(file: GgufFile, keys: Keys, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the rows of the output matrix: what the logits count."""
    stored = shapes.get("output.weight") or shapes.get("token_embd.weight")
    if stored and len(stored) > 1:
        return stored[1]
    return keys.integer("vocab_size", file.array_lengths.get("tokenizer.ggml.tokens", 0))


def _blocks(shapes: Mapping[str, tuple[int, ...]], n_stored: int) -> list[Block]:
    """Return the tensors of each stored layer by their name within it."""
    blocks: list[Block] = [{} for _ in range(n_stored)]
    for name, shape in shapes.items():
        prefix, _, rest = name.partition(".")
        index, _, suffix = rest.partition(".")
        if prefix == "blk" and index.isdecimal() and int(index) < n_stored:
            blocks[int(index)][suffix] = shape
    return blocks


def _layers(architecture: str, keys: Keys, blocks: list[Block], n_layers: int) -> tuple[tuple[Layer, ...], str]:
    """Return the layers, or none and the reason."""
    rules = layer_rules(architecture)
    if rules is None:
        return (), f"the architecture {architecture!r} is not known"
    if rules.get("n_layers", n_layers) != n_layers:
        return (), f"{architecture!r} with {n_layers} layers is another model"
    recurrent = tuple(any(name in block for name in _RECURRENT) for block in blocks)
    reading = Reading(
        keys=keys,
        rules=rules,
        n_embd=keys.integer("embedding_length"),
        n_stored_layers=len(blocks),
        n_layers=n_layers,
        windows=window_tokens(keys, rules, len(blocks), recurrent),
    )
    found: list[Layer] = []
    for index, block in enumerate(blocks[:n_layers]):
        layer = reading.layer(index, block)
        if layer is None:
            return (), f"layer {index} is of no known kind"
        found.append(layer)
    return tuple(found), ""


def _unexplained(language: Language, blocks: list[Block]) -> str:
    """Return why the layers must not be trusted: tensors that the kinds found do not account for, or lack."""
    for index, (layer, block) in enumerate(zip(language.layers, blocks, strict=False)):
        expected = dict(layer_tensors(language, layer))
        reads_other = getattr(layer.mixer, "kv_source_layer", None) is not None
        missing = expected.keys() - block.keys() - (_SPARED if reads_other else frozenset())
        strange = {name for name, shape in block.items() if _trimmed(expected.get(name)) != _trimmed(shape)}
        if missing or strange:
            return f"layer {index} stores {min(strange | missing)!r} in a way that no known kind does"
    return ""


def _trimmed(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return a shape without ones at its end, which some writers leave out."""
    while shape and len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _facts(architecture: str, keys: Keys, shapes: Mapping[str, tuple[int, ...]], unknown: str) -> dict[str, Number]:
    rules = layer_rules(architecture) or {}
    facts = keys.facts() | architecture_facts(rules)
    embedding = shapes.get("token_embd.weight")
    output = shapes.get("output.weight")
    if embedding and output and embedding != output:
        facts["embedding_rows"] = embedding[-1]
    if unknown:
        facts["unknown"] = unknown
    return facts
