"""What a request for compute memory holds, and what distinguishes one architecture's graph from another's as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Literal

from planner.engines.llama_cpp.backend import OFFLOAD_BATCH, Backends
from planner.frozen import dataclass
from planner.model import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTraits:
    """How the engine puts the layer kinds of one architecture together, where that is no matter of its tensors.

    ``positions``: numbers per token that rotate queries and keys; ``sectioned`` is 4 where the file has sections.
    ``rotary``: ``stepped`` leaves every n-th layer (``no_rope_layer_step``) without, ``windowed`` all without a window,
    ``windowed_if_any`` the same where some layer has one, ``windowed_or_dense`` those without experts too, ``by_file``
    none where the file says that ``rope.scaling.finetuned`` is false.
    ``rotary_factors``: which layers read the stored frequency factors. ``qk_norm``: whether the weighted norms of
    queries and keys stand before or after the rotation; ``rotated_norm``: an unweighted one after it, on layers that
    rotate. ``temperature``: which queries are multiplied by an input; ``by_file`` all, where the file has a
    ``attention.temperature_scale``. ``score_softcap``: scores without flash attention pass through a tanh.
    ``norm_expanded``: the first norm is computed before anything else of its layer. ``layer_norm``: norms subtract the
    mean; ``by_file`` where the file has no ``attention.layer_norm_rms_epsilon``.
    ``fused_qkv``: whether queries, keys and values of one projection are looked at or copied.
    ``attention_sum``, ``ffn_sum``: which operand of the residual sum stands first; ``parallel``: both blocks read
    the same norm and are added at the end, the one named first. ``post_norms_pinned``: the norm after the feed-forward
    block stays with its layer too. ``activation``: of blocks without a gate.
    ``routed_by``: what the router reads, the normed stream or what enters the layer. ``shared_gate``: how the shared
    expert's gate is made; ``shared_mean``: its result and that of the others are halved. ``exact_experts``: what
    enters their down projection keeps all its bits, which CUDA refuses. ``output_rows``: where the
    rows that need logits are picked, ``last_layer_normed`` after that layer's norm of what attention gave,
    ``before_norm`` of a stream that is read afterwards, ``merged`` of one that is not, ``all``: nowhere.
    ``deepstack``: image features are added after the first layers, or before those that ``deepstack_mapping`` names.
    ``embedding_scale``, ``residual_scale``, ``logit_scale``: multiplied even where the file has no such key;
    ``head_scale``: what the output matrix reads is multiplied.
    """

    positions: Literal["one", "four", "sectioned", "none"] = "one"
    rotary: Literal["all", "stepped", "windowed", "windowed_if_any", "windowed_or_dense", "by_file", "none"] = "all"
    rotary_factors: Literal["none", "all", "full_layers"] = "none"
    qk_norm: Literal["before", "after"] = "before"
    rotated_norm: bool = False
    query_scale: bool = False
    value_norm: bool = False
    temperature: Literal["none", "unrotated", "by_file"] = "none"
    score_softcap: bool = False
    norm_expanded: bool = False
    layer_norm: Literal["never", "always", "by_file"] = "never"
    fused_qkv: Literal["viewed", "copied"] = "viewed"
    attention_sum: Literal["result", "stream"] = "result"
    ffn_sum: Literal["result", "stream"] = "result"
    parallel: Literal["no", "ffn_first", "attention_first"] = "no"
    post_norms_pinned: bool = False
    activation: Literal["gelu", "relu_sqr", "xielu"] = "gelu"
    routed_by: Literal["norm", "layer_input"] = "norm"
    shared_gate: Literal["sigmoid", "silu_ratio"] = "sigmoid"
    shared_mean: bool = False
    weights_before_experts: bool = False
    exact_experts: bool = False
    dense_beside_experts: bool = False
    output_rows: Literal["last_layer", "last_layer_normed", "after_norm", "before_norm", "merged", "all"] = "last_layer"
    deepstack: Literal["no", "after_first", "mapped"] = "no"
    embedding_scale: bool = False
    residual_scale: bool = False
    logit_scale: bool = False
    head_scale: bool = False
    logit_softcap: Literal["none", "by_file", "always"] = "none"


def traits_from(entry: Mapping[str, object]) -> GraphTraits:
    """Return the traits written in one architecture's entry of the table.

    Raises:
        ValueError: the entry names a trait that does not exist.
    """
    unknown = set(entry) - {f.name for f in fields(GraphTraits)}
    if unknown:
        raise ValueError(f"unknown graph traits: {', '.join(sorted(unknown))}")
    return GraphTraits(**entry)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRequest:
    """Everything the engine's worst-case graph depends on. Devices are GPU numbers; the host is ``backends.host``.

    ``weights``: device of each stored tensor by name. ``layer_devices``, ``cache_devices``: of each layer, its cache.
    ``values_transposed``: how the V cache lies; by default transposed where flash attention is off, but ``auto`` lays
    it out before it settles. ``n_tokens``: of the ubatch; ``n_outputs``: rows of logits asked; ``n_cells``,
    ``n_window_cells``: of one cache stream; ``n_context``: of one sequence. ``pinned``: norms stay with their layer, as
    in a real allocation of a fully offloaded model; a measurement without allocation (``--fit``) drops that.
    """

    language: Language
    traits: GraphTraits
    backends: Backends
    weights: Mapping[str, int]
    layer_devices: tuple[int, ...]
    cache_devices: tuple[int, ...]
    output_device: int
    n_tokens: int
    n_outputs: int
    n_seqs: int = 1
    n_streams: int = 1
    n_cells: int
    n_window_cells: int = 0
    n_context: int
    flash_attn: bool = True
    values_transposed: bool | None = None
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    kv_offload: bool = True
    pinned: bool = True

    @property
    def transposed(self) -> bool:
        """Whether the V cache lies transposed."""
        return not self.flash_attn if self.values_transposed is None else self.values_transposed

    @property
    def batch_tokens(self) -> int:
        """Tokens of the graph: the same number for each sequence."""
        return -(-self.n_tokens // self.n_seqs) * self.n_seqs

    @property
    def sends_host_weights(self) -> bool:
        """Whether the batch is large enough for a GPU to compute with weights of the host, copied over."""
        return self.backends.op_offload and self.backends.n_gpus > 0 and self.batch_tokens >= OFFLOAD_BATCH

    @property
    def deepstack(self) -> Mapping[int, int]:
        """Which part of the embeddings (0: that of the tokens) is added at which layer."""
        if self.traits.deepstack == "after_first":
            return {i: i + 1 for i in range(self.language.n_deepstack_layers)}
        mapping = self.language.facts.get("deepstack_mapping")
        if self.traits.deepstack == "no" or not isinstance(mapping, tuple):
            return {}
        return {i: part for i, part in enumerate(mapping[: self.language.n_layers]) if i > 0 and part >= 0}

    @property
    def rotary_step(self) -> int:
        """Every so many layers one does not rotate queries and keys; 0 where all are alike."""
        if self.traits.rotary != "stepped":
            return 0
        step = self.language.facts.get("no_rope_layer_step")
        return step if isinstance(step, int) and step > 0 else 4
