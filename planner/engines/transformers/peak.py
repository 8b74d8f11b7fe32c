"""The peak of a prefill: the largest of its moments, each a sum of named tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from planner.engines.transformers.attention import attention_path, mask_bytes
from planner.engines.transformers.forms import Forms, Moment, Terms, Width
from planner.engines.transformers.kv_cache import held_cache_bytes
from planner.engines.transformers.mixer_quantities import MIXERS
from planner.engines.transformers.prefill import Prefill
from planner.engines.transformers.quantities import LANGUAGE, Quantity
from planner.engines.transformers.settings import AttentionImplementation
from planner.engines.transformers.tower_quantities import TOWER
from planner.frozen import dataclass
from planner.model import Attention, CrossAttention, DenseFfn, GatedDeltaNet, LatentAttention, Layer, MoeFfn, ShortConv

QUANTITIES: Mapping[str, Quantity] = {quantity.__name__: quantity for quantity in (*LANGUAGE, *MIXERS, *TOWER)}
_OTHER_MIXERS: Mapping[type, str] = {LatentAttention: "latent", GatedDeltaNet: "delta", ShortConv: "convolution"}
FIXED_WIDTHS: Mapping[Width, int] = {"f32": 4, "i64": 8, "i32": 4, "bool": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What of the model runs on one device: its layers, and whether the tower and the head are there."""

    layers: tuple[int, ...]
    tower: bool = True
    head: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """One moment of a prefill: where it is and the bytes of what lives then, weights aside."""

    at: str
    tensors: Mapping[str, int]

    @property
    def n_bytes(self) -> int:
        """Sum of all tensors."""
        return sum(self.tensors.values())


def prefill_peak(
    p: Prefill, forms: Forms, implementation: AttentionImplementation, dtype: str, share: Share | None = None
) -> Peak:
    """Return the moment that needs most, KV cache included, on a device that runs ``share`` (None: everything).

    peak = max(tower: inputs + prompt embeddings + tower's moment; each kind of layer, at its last one: KV + held +
    moment; head: KV + logits). Source: ``profiles/engines/transformers/moments.yaml``.
    """
    share = share or Share(layers=tuple(range(p.language.n_layers)))
    found = [Peak(at="nothing runs here", tensors={})]
    if share.tower:
        found += tower_peaks(p, implementation, dtype)
    found += entry_peaks(p, forms, implementation, dtype, share.layers)
    found += layer_peaks(p, forms, implementation, dtype, share.layers)
    if share.head:
        found += head_peaks(p, forms, dtype, share.layers)
    return max(found, key=lambda peak: peak.n_bytes)


def tower_peaks(p: Prefill, implementation: AttentionImplementation, dtype: str) -> Iterator[Peak]:
    """Yield the moments of the vision tower, all images of the batch at once."""
    if not p.n_images:
        return
    path = "eager" if implementation == "eager" else "fused"
    layer = p.language.layers[0]
    common = {"inputs": inputs_bytes(p)}
    if p.form.tower_holds_prompt:
        common["prompt embeddings"] = p.n_rows * p.language.n_embd * p.element_bytes
    for moment in _present(p.form.tower, p, path):
        yield Peak(at=f"vision tower: {moment.at}", tensors={**common, **_tensors(moment.terms, p, layer, path, dtype)})


def entry_peaks(
    p: Prefill, forms: Forms, implementation: AttentionImplementation, dtype: str, indices: tuple[int, ...]
) -> Iterator[Peak]:
    """Yield the moments between the tower and the first layer, on the device that has that layer."""
    if p.form.entry is None or 0 not in indices:
        return
    layer = p.language.layers[0]
    common = _through_layers(p, layer, implementation)
    del common["rotary table"]
    for moment in _present(forms.decoder[p.form.entry], p, ""):
        yield Peak(at=moment.at, tensors={**common, **_tensors(moment.terms, p, layer, "", dtype)})


def layer_peaks(
    p: Prefill, forms: Forms, implementation: AttentionImplementation, dtype: str, indices: tuple[int, ...]
) -> Iterator[Peak]:
    """Yield the moments of each kind of layer at the last place it has among ``indices``."""
    last = {
        _kind(p.language.layers[i]): i for i in indices if runs_all_positions(p, p.language.layers[i], implementation)
    }
    for i in last.values():
        layer = p.language.layers[i]
        path = attention_path(p, layer, implementation)
        common = _through_layers(p, layer, implementation)
        before = held_cache_bytes(p, tuple(j for j in indices if j < i))
        through = before + held_cache_bytes(p, (i,))
        for name in _lists(p, layer):
            for moment in _present(forms.decoder[name], p, path):
                cache = through if moment.cache == "through" else before
                tensors = _tensors(moment.terms, p, layer, path, dtype)
                yield Peak(at=f"layer {i}: {moment.at}", tensors={"kv cache": cache, **common, **tensors})


def runs_all_positions(p: Prefill, layer: Layer, implementation: AttentionImplementation) -> bool:
    """Whether a layer computes all positions: one without a cache of its own may be run for the kept ones only."""
    if not p.form.kept_positions_only or p.all_logits or implementation == "flash_attention_2":
        return True
    return not (isinstance(layer.mixer, Attention) and layer.mixer.kv_source_layer is not None)


def head_peaks(p: Prefill, forms: Forms, dtype: str, indices: tuple[int, ...]) -> Iterator[Peak]:
    """Yield the moments after the last layer: the final norm and the logits."""
    layer = p.language.layers[-1]
    held = _tensors(p.form.head_held, p, layer, "", dtype) if p.n_images else {}
    common = {"kv cache": held_cache_bytes(p, indices), "inputs": inputs_bytes(p)}
    common["kept to the head"] = sum(held.values())
    for moment in _present(forms.decoder[p.form.head], p, ""):
        yield Peak(at=moment.at, tensors={**common, **_tensors(moment.terms, p, layer, "", dtype)})


def inputs_bytes(p: Prefill) -> int:
    """Return the bytes of what the processor hands over: token ids, masks, pixels."""
    layer = p.language.layers[0]
    total = sum(_tensors(p.form.inputs, p, layer, "", "").values())
    return total + (sum(_tensors(p.form.image_inputs, p, layer, "", "").values()) if p.n_images else 0)


def _through_layers(p: Prefill, layer: Layer, implementation: AttentionImplementation) -> dict[str, int]:
    """What lives through all layers: embeddings, inputs, results of the tower, positions, rotary table, masks."""
    found = {"prompt embeddings": p.n_rows * p.language.n_embd * p.element_bytes, "inputs": inputs_bytes(p)}
    if p.n_images:
        found["kept of the tower"] = sum(_tensors(p.form.held, p, layer, "", "").values())
    positions = (p.form.image_positions if p.n_images else None) or p.form.positions
    found["positions"] = sum(_tensors(positions, p, layer, "", "").values())
    found["rotary table"] = sum(_tensors(p.form.rope, p, layer, "", "").values())
    found["masks"] = mask_bytes(p, implementation)
    return found


def _kind(layer: Layer) -> tuple[object, ...]:
    window = layer.mixer.window_tokens if isinstance(layer.mixer, Attention) else None
    return type(layer.mixer), window, type(layer.ffn)


def _lists(p: Prefill, layer: Layer) -> Iterator[str]:
    """Yield the lists of moments that apply to ``layer``."""
    mixer = layer.mixer
    if isinstance(mixer, Attention):
        yield "attention"
        yield p.form.eager
        if mixer.qk_norm != "none":
            yield "head_norms"
    elif isinstance(mixer, CrossAttention):
        yield "cross"
    else:
        yield _OTHER_MIXERS.get(type(mixer), "state")
    if isinstance(layer.ffn, DenseFfn):
        yield "fused" if layer.ffn.fused else "dense"
    elif isinstance(layer.ffn, MoeFfn):
        yield p.form.experts
    yield "norm"


def _present(moments: tuple[Moment, ...], p: Prefill, path: str) -> Iterator[Moment]:
    for moment in moments:
        if moment.paths and path not in moment.paths:
            continue
        if not moment.element_bytes or p.element_bytes in moment.element_bytes:
            yield moment


def _tensors(terms: Terms, p: Prefill, layer: Layer, path: str, dtype: str) -> dict[str, int]:
    """Return the bytes of each quantity of ``terms``; widths of one quantity are added up."""
    found: dict[str, int] = {}
    for width, counts in terms.items():
        if width == "kept" and path != "eager":
            continue
        for name, count in counts.items():
            n_bytes = int(count * QUANTITIES[name](p, layer)) * _element_bytes(width, p, dtype)
            found[name] = found.get(name, 0) + n_bytes
    return found


def _element_bytes(width: Width, p: Prefill, dtype: str) -> int:
    """Bytes of an element; softmax in 32 bit holds scores, copy and result (a fused cast spares fp16 the copy)."""
    if width in FIXED_WIDTHS:
        return FIXED_WIDTHS[width]
    if width == "softmax":
        return 10 if dtype == "bf16" else 8
    return p.element_bytes
