"""The language part of a configuration becomes layers. Hugging Face key names live in this package only.

What a key means is the meaning the modelling code of transformers 5.23 gives it; what it leaves to the code stands
in ``profiles/sources/hf.yaml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.catalog.architectures import architecture_facts, layer_rules
from planner.errors import SourceError
from planner.model import Language, Layer
from planner.sources.hf.documents import with_defaults
from planner.sources.hf.ffn import ffn_of
from planner.sources.hf.mixers import KINDS, Shape, layer_kinds, mixer_of, windows
from planner.sources.hf.words import LanguageWords

if TYPE_CHECKING:
    from planner.model import Number
    from planner.sources.hf.documents import Documents
    from planner.sources.json_text import Fields

MAX_LAYERS = 512
MAX_WIDTH = 1 << 24

# keys of layer kinds that only their own families have: where one is set and no data says what it means, nothing is
_FOREIGN = (
    "ssm_cfg",
    "state_size",
    "mamba_d_state",
    "mamba_num_heads",
    "linear_num_key_heads",
    "hybrid_override_pattern",
    "attn_layer_indices",
    "layers_block_type",
    "conv_L_cache",
    "global_head_dim",
    "num_kv_shared_layers",
    "cross_attention_layers",
    "kv_lora_rank",
    "block_configs",
    "attention_chunk_size",
    "index_topk",
)
_STANDARD = ("hidden_size", "num_hidden_layers", "num_attention_heads")


def language_from_config(documents: Documents, words: LanguageWords) -> Language:
    """Return the language model that the configuration describes, for a family that the data knows.

    Raises:
        SourceError: a key is missing, of the wrong kind or out of bounds.
    """
    text = with_defaults(documents.text, words.defaults)
    n_layers = text.require("num_hidden_layers", "n_layers", at_least=1, at_most=MAX_LAYERS)
    shape = _shape(text, words, n_layers)
    kinds = layer_kinds(text, n_layers)
    layers = tuple(
        Layer(
            mixer=mixer_of(text, words, shape, index, kinds),
            ffn=ffn_of(text, words, index, n_layers),
            post_norms=words.post_norms,
        )
        for index in range(n_layers)
    )
    rules = layer_rules(words.architecture) or {}
    read = {key: found for key, wanted in words.facts.items() if (found := documents.value(wanted)) is not None}
    return Language(
        architecture=words.architecture,
        n_embd=shape.n_embd,
        n_vocab=text.require("vocab_size", at_least=1, at_most=MAX_WIDTH),
        n_context_train=text.require("max_position_embeddings", "max_sequence_length", "seq_length", at_most=1 << 32),
        layers=layers,
        tied_embeddings=_tied(documents, text, words),
        n_deepstack_layers=len(documents.vision.items("deepstack_visual_indexes")),
        n_embd_per_layer=text.integer("hidden_size_per_layer_input", default=0, at_most=MAX_WIDTH) or 0,
        rope_factors=_rope_factors(text, shape),
        facts=_rope_facts(text, shape) | architecture_facts(rules) | read,
    )


def language_from_standard_keys(documents: Documents, model_type: str) -> Language:
    """Return what can be said of a family that the data does not know.

    Plain attention by the standard keys where all are there and none of another kind of layer is; otherwise ``layers``
    is empty and ``facts["unknown"]`` says why, as for a GGUF file of an unknown architecture.
    """
    text = documents.text
    missing = [key for key in _STANDARD if key not in text]
    foreign = [key for key in (*_FOREIGN, *KINDS) if text.values.get(key)]
    if missing or foreign:
        what = f"{', '.join(missing)} is missing" if missing else f"{foreign[0]} describes layers of another kind"
        return _unknown(text, f"the model type {model_type!r} is not known and {what}")
    found = language_from_config(documents, LanguageWords(architecture=""))
    note = f"the model type {model_type!r} is not known; plain attention is read from the standard keys"
    return _with_facts(found, {"assumed": note})


def _unknown(text: Fields, reason: str) -> Language:
    return Language(
        architecture="",
        n_embd=text.integer("hidden_size", default=0, at_most=MAX_WIDTH) or 0,
        n_vocab=text.integer("vocab_size", default=0, at_most=MAX_WIDTH) or 0,
        n_context_train=text.integer("max_position_embeddings", default=0) or 0,
        layers=(),
        facts={"unknown": reason},
    )


def _with_facts(language: Language, facts: dict[str, Number]) -> Language:
    from dataclasses import replace  # noqa: PLC0415 - one use

    return replace(language, facts={**language.facts, **facts})


def _shape(text: Fields, words: LanguageWords, n_layers: int) -> Shape:
    n_embd = text.require("hidden_size", at_least=1, at_most=MAX_WIDTH)
    n_heads = text.require("num_attention_heads", at_least=1, at_most=MAX_WIDTH)
    n_kv_heads = text.integer("num_key_value_heads", default=n_heads, at_least=1, at_most=MAX_WIDTH) or n_heads
    head_dim = text.integer("head_dim", default=max(1, n_embd // n_heads), at_least=1, at_most=MAX_WIDTH)
    if n_heads % n_kv_heads:
        raise SourceError(f"{text.where}: {n_heads} attention heads do not divide by {n_kv_heads} KV heads")
    return Shape(
        n_embd=n_embd,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim or n_embd // n_heads,
        windows=windows(text, words.window, n_layers),
    )


def _tied(documents: Documents, text: Fields, words: LanguageWords) -> bool:
    """Return whether the output shares the embedding: the whole model's word counts before its text part's."""
    inner = text.flag("tie_word_embeddings", default=words.tied)
    return documents.config.flag("tie_word_embeddings", default=inner) if documents.config is not text else inner


def _rope_facts(text: Fields, shape: Shape) -> dict[str, Number]:
    """Return base and width of the rotary embedding, under their GGUF keys, where the configuration says them."""
    found: dict[str, Number] = {}
    scaling = text.fields("rope_parameters", "rope_scaling")
    places = (text,) if scaling is None else (text, scaling)
    base = next((n for place in places if (n := place.number("rope_theta")) is not None), None)
    if base is not None:
        found["rope.freq_base"] = float(base)
    share = next((n for place in places if (n := place.number("partial_rotary_factor")) is not None), None)
    width = text.integer("qk_rope_head_dim") or (int(shape.head_dim * share) if share is not None else None)
    return found | ({"rope.dimension_count": width} if width else {}) | _linear_scaling(text)


def _linear_scaling(text: Fields) -> dict[str, Number]:
    """Return by how much positions are compressed, where they all are: the rotary tables are longer by that factor."""
    scaling = text.fields("rope_scaling", "rope_parameters")
    linear = scaling is not None and scaling.text("rope_type", "type") == "linear"
    factor = scaling.number("factor") if scaling is not None and linear else None
    return {"rope.scaling.type": "linear", "rope.scaling.factor": float(factor)} if factor else {}


def _rope_factors(text: Fields, shape: Shape) -> tuple[int, ...]:
    """Return the widths of the rotary factor tensors that a converted file stores."""
    scaling = text.fields("rope_scaling", "rope_parameters")
    if scaling is None:
        return ()
    nested = scaling.fields("full_attention")
    scaling = nested or scaling
    kind = scaling.text("rope_type", "type")
    head_dim = text.integer("global_head_dim", default=shape.head_dim) or shape.head_dim
    rotary = int(head_dim * (text.number("partial_rotary_factor") or 1.0)) // 2
    if kind in {"longrope", "su"}:
        return (rotary, rotary)
    return (head_dim // 2,) if kind in {"llama3", "proportional"} else ()
