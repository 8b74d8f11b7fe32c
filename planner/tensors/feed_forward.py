"""The tensors of feed-forward blocks, dense or of experts, by their name within the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.model import DenseFfn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.model import Ffn, MoeFfn

Entry = tuple[str, tuple[int, ...]]  # name, shape


def ffn_tensors(ffn: Ffn, n_embd: int) -> Iterator[Entry]:
    """Yield the tensors of one block of a model ``n_embd`` wide."""
    return _dense(ffn, n_embd) if isinstance(ffn, DenseFfn) else _experts(ffn, n_embd)


def _dense(ffn: DenseFfn, n_embd: int) -> Iterator[Entry]:
    separate_gate = ffn.gated and not ffn.fused
    up = ffn.n_ff * (2 if ffn.fused else 1)
    if separate_gate:
        yield "ffn_gate.weight", (n_embd, ffn.n_ff)
    yield "ffn_up.weight", (n_embd, up)
    yield "ffn_down.weight", (ffn.n_ff, n_embd)
    if ffn.bias:
        if separate_gate:
            yield "ffn_gate.bias", (ffn.n_ff,)
        yield "ffn_up.bias", (up,)
        yield "ffn_down.bias", (n_embd,)


def _experts(ffn: MoeFfn, n_embd: int) -> Iterator[Entry]:
    n_experts, width = ffn.n_experts, ffn.n_ff_expert
    if ffn.n_ff_dense:
        yield from _dense_beside(ffn, n_embd)
    yield "ffn_gate_inp.weight", (n_embd, n_experts)
    if ffn.selection_bias:
        yield "exp_probs_b.bias", (n_experts,)
    if ffn.fused:
        yield "ffn_gate_up_exps.weight", (n_embd, 2 * width, n_experts)
    else:
        if ffn.gated:
            yield "ffn_gate_exps.weight", (n_embd, width, n_experts)
        yield "ffn_up_exps.weight", (n_embd, width, n_experts)
    yield "ffn_down_exps.weight", (width, n_embd, n_experts)
    if ffn.down_scale:
        yield "ffn_down_exps.scale", (n_experts,)
    if ffn.bias:
        yield from _expert_biases(ffn, n_embd)
    if ffn.n_ff_shared:
        yield from _shared_expert(ffn, n_embd)


def _dense_beside(ffn: MoeFfn, n_embd: int) -> Iterator[Entry]:
    """Yield a dense branch beside the experts, with the norms and the router scale that keep the two apart."""
    yield from _dense(DenseFfn(n_ff=ffn.n_ff_dense), n_embd)
    yield "ffn_gate_inp.scale", (n_embd,)
    yield "pre_ffw_norm_2.weight", (n_embd,)
    yield "post_ffw_norm_1.weight", (n_embd,)
    yield "post_ffw_norm_2.weight", (n_embd,)


def _expert_biases(ffn: MoeFfn, n_embd: int) -> Iterator[Entry]:
    yield "ffn_gate_inp.bias", (ffn.n_experts,)
    if ffn.fused:
        yield "ffn_gate_up_exps.bias", (2 * ffn.n_ff_expert, ffn.n_experts)
    else:
        if ffn.gated:
            yield "ffn_gate_exps.bias", (ffn.n_ff_expert, ffn.n_experts)
        yield "ffn_up_exps.bias", (ffn.n_ff_expert, ffn.n_experts)
    yield "ffn_down_exps.bias", (n_embd, ffn.n_experts)


def _shared_expert(ffn: MoeFfn, n_embd: int) -> Iterator[Entry]:
    if ffn.shared_gate:
        yield "ffn_gate_inp_shexp.weight", (n_embd,)
    if ffn.gated:
        yield "ffn_gate_shexp.weight", (n_embd, ffn.n_ff_shared)
    yield "ffn_up_shexp.weight", (n_embd, ffn.n_ff_shared)
    yield "ffn_down_shexp.weight", (ffn.n_ff_shared, n_embd)
