"""An upper bound of the compute buffers from widths alone: microseconds instead of a simulation, and for any model.

It knows no order of operations. A layer is given room for every result of its matrices twice over (the products, and
what norms, rotations and activations make of them) beside the residual stream; attention, logits, masks and copies of
what lies on another device are added in full. The factor is generous on purpose: over every row of the measured tables
the bound is never below the truth, which is what it is for (feasibility is judged on it). It is no estimate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from planner.engines.llama_cpp.flash_attention import mixer_supported
from planner.frozen import dataclass
from planner.model import Attention, LatentAttention
from planner.quantization import FORMATS, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from planner.engines.llama_cpp.traits import GraphRequest
    from planner.model import Language, Number, Tensor

ROOM = 2  # results of a layer's matrices are given room this many times
STREAMS = 10  # tensors as wide as the model that may be alive beside them
SMALL_BYTES = 1 << 20  # positions, indices, rotations, alignment
_EMBEDDINGS = ("token_embd.", "per_layer_token_embd.", "position_embd.", "token_types.")
_REMEMBERED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWidths:
    """Of one layer: elements per token of all its matrices' results, of a K and a V row; state; head sizes accepted."""

    results: int
    key_row: int
    value_row: int
    n_heads: int
    state_elements: int
    flash_attn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Of a whole model: its distinct layers and which of them each layer is; every weight's layer and bytes.

    ``per_layer``: elements per token of all layers' own inputs together. ``n_copies``: of the residual stream.
    """

    distinct: tuple[LayerWidths, ...]
    kinds: tuple[int, ...]
    weights: Mapping[str, tuple[int, int]]
    sharing: tuple[tuple[int, int], ...]  # (layer, the layer whose cache it reads)
    per_layer: int
    n_copies: int
    output_bytes: int


def bound_bytes(request: GraphRequest) -> tuple[int, ...]:
    """Return an upper bound of each device's compute buffer, the host's last.

    Of the traits only that is looked at which brings weights to the host.
    """
    widths = widths_of(request.language)
    n_tokens = -(-request.n_tokens // request.n_seqs) * request.n_seqs
    host = request.backends.host
    copied = _largest_on_host(request)
    phases = [0] * (host + 1)
    kept = _foreign_cache_bytes(request, widths)
    for (kind, device, cache_device, on_host), n_layers in _kinds_of_layers(request, widths, copied).items():
        layer = widths.distinct[kind]
        refused = request.flash_attn and not layer.flash_attn
        n_bytes = _layer_bytes(request, layer, n_tokens)
        for place in _places(device, cache_device, host, anywhere=on_host or refused):
            phases[place] = max(phases[place], n_bytes + _cache_copies(request, layer, place, cache_device))
        if refused:  # attention on the host: its operands and its result cross over in every layer
            kept += n_layers * _crossing_bytes(request, layer, n_tokens) * request.backends.n_copies
        if request.traits.exact_experts:  # experts there: what enters them and what leaves
            kept += n_layers * 4 * n_tokens * layer.results * request.backends.n_copies
    for place in _output_places(request):
        phases[place] += _logits_bytes(request, n_tokens)
    phases[0] += 2 * max(copied.values(), default=0) if host else 0
    phases[-1] += _brought_to_host(request, widths)
    kept += _input_bytes(request, widths, n_tokens) * (request.backends.n_copies + 1)
    return (*(phase + kept if phase else 0 for phase in phases[:-1]), phases[-1] + kept)


def _brought_to_host(request: GraphRequest, widths: Widths) -> int:
    """Return the copies of experts' matrices on the host, where a GPU holds them and refuses to compute with them."""
    if not request.traits.exact_experts:
        return 0
    host, suffix = request.backends.host, ".ffn_down_exps.weight"
    sizes = [
        widths.weights[name][1] for name, device in request.weights.items() if name.endswith(suffix) and device != host
    ]
    n_copies = request.backends.n_copies
    return n_copies * sum(sizes) if n_copies > 1 else 2 * max(sizes, default=0)


def _largest_on_host(request: GraphRequest) -> dict[int, int]:
    """Return the bytes of the largest weight that lies on the host, by layer (-1: the output)."""
    host, widths = request.backends.host, widths_of(request.language)
    largest: dict[int, int] = {}
    for name in [name for name, device in request.weights.items() if device == host]:
        layer, n_bytes = widths.weights.get(name, (-2, 0))
        if layer >= -1:
            largest[layer] = max(largest.get(layer, 0), n_bytes)
    if host in _output_places(request):
        largest[-1] = widths.output_bytes
    return largest


def _kinds_of_layers(
    request: GraphRequest, widths: Widths, copied: Mapping[int, int]
) -> Counter[tuple[int, int, int, bool]]:
    """Return how many layers there are of each (kind, device, cache's device, whether a weight is on the host)."""
    if len(request.layer_devices) < len(widths.kinds):  # nobody knows which device holds which layer: all of all
        places = range(request.backends.n_gpus + 1)
        return Counter((kind, place, place, True) for kind in widths.kinds for place in places)
    layers = zip(widths.kinds, request.layer_devices, request.cache_devices, strict=False)
    return Counter([(kind, device, cache, i in copied) for i, (kind, device, cache) in enumerate(layers)])


def _places(device: int, cache_device: int, host: int, *, anywhere: bool) -> set[int]:
    """Return every device that may compute something of a layer: large batches for the host go to the first GPU."""
    places = {device, cache_device, host} if anywhere else {device, cache_device}
    return places | {0} if host in places else places


def _crossing_bytes(request: GraphRequest, layer: LayerWidths, n_tokens: int) -> int:
    rows = request.n_cells * request.n_streams * (layer.key_row + layer.value_row)
    return rows * _widest_cache(request) + 4 * n_tokens * layer.results


def _output_places(request: GraphRequest) -> set[int]:
    host = request.backends.host
    device = request.weights.get("output.weight", request.output_device)
    return {device, 0} if device == host and host else {device}


def _input_bytes(request: GraphRequest, widths: Widths, n_tokens: int) -> int:
    """Return the inputs of the graph and the streams that enter a device: embeddings, masks, own inputs of layers."""
    mask = 2 if request.flash_attn else 4
    cells = request.n_cells + request.n_window_cells
    values = 0 if request.flash_attn else 8 * 2 * max((layer.value_row for layer in widths.distinct), default=0)
    stream = 4 * request.language.n_embd * (2 * widths.n_copies + request.language.n_deepstack_layers)
    return SMALL_BYTES + n_tokens * (stream + mask * cells + values + 8 * widths.per_layer + 64)


def _layer_bytes(request: GraphRequest, layer: LayerWidths, n_tokens: int) -> int:
    n_bytes = 4 * n_tokens * (ROOM * layer.results + STREAMS * request.language.n_embd)
    n_bytes += 8 * request.n_seqs * layer.state_elements
    if layer.n_heads and not request.flash_attn:
        # scores, and a quarter for gaps between them; with two caches as much again, where one hole follows another
        n_bytes += (9 if request.n_window_cells else 5) * layer.n_heads * request.n_cells * n_tokens
        n_bytes += request.n_cells * request.n_streams * layer.value_row * _widest_cache(request)  # transposed values
    elements = request.n_cells * request.n_streams * (layer.key_row + layer.value_row)
    return n_bytes + (2 * elements if _converts(request) else 0)


def _converts(request: GraphRequest) -> bool:
    return request.flash_attn and (request.cache_type_k != "f16" or request.cache_type_v != "f16")


def _cache_copies(request: GraphRequest, layer: LayerWidths, place: int, cache_device: int) -> int:
    """Return the copy of a layer's cache on a device that computes its attention and does not hold it."""
    if cache_device == place:
        return 0
    return request.n_streams * request.n_cells * (layer.key_row + layer.value_row) * _widest_cache(request)


def _widest_cache(request: GraphRequest) -> int:
    return max(4 if name == "f32" else 2 for name in (request.cache_type_k, request.cache_type_v))


def _logits_bytes(request: GraphRequest, n_tokens: int) -> int:
    language = request.language
    rows = 4 * request.n_outputs * (language.n_vocab + 4 * language.n_embd)
    return rows + 4 * n_tokens * 4 * language.n_embd


def _foreign_cache_bytes(request: GraphRequest, widths: Widths) -> int:
    """Return the copies of caches that layers share from a layer on another device."""
    total = 0
    for i, source in widths.sharing:
        if request.cache_devices[source] != request.layer_devices[i]:
            own = widths.distinct[widths.kinds[source]]
            cells = request.n_cells * request.n_streams
            total += cells * (own.key_row + own.value_row) * _widest_cache(request) * request.backends.n_copies
    return total


_remembered: dict[int, tuple[Language, Widths]] = {}


def widths_of(language: Language) -> Widths:
    """Return the widths of a model, computed once for each."""
    known = _remembered.get(id(language))
    if known is None or known[0] is not language:
        while len(_remembered) >= _REMEMBERED:
            _remembered.pop(next(iter(_remembered)))
        known = _remembered[id(language)] = language, _widths(language)
    return known[1]


def _widths(language: Language) -> Widths:
    blocks: dict[int, list[Tensor]] = defaultdict(list)
    output = 0
    for tensor in language.tensors:
        prefix, _, rest = tensor.name.partition(".")
        number = rest.partition(".")[0]
        if prefix == "blk" and number.isdecimal():
            blocks[int(number)].append(tensor)
        elif not tensor.name.startswith(_EMBEDDINGS[1:]):
            output = max(output, _bytes(tensor))
    n_layers = language.n_layers or max(blocks, default=-1) + 1
    layers = [_layer_widths(language, i, blocks[i]) for i in range(n_layers)]
    distinct = tuple(dict.fromkeys(layers))
    return Widths(
        distinct=distinct,
        kinds=tuple(distinct.index(layer) for layer in layers),
        weights={tensor.name: (i, _bytes(tensor)) for i in range(n_layers) for tensor in blocks[i]},
        sharing=tuple(
            (i, layer.mixer.kv_source_layer)
            for i, layer in enumerate(language.layers)
            if isinstance(layer.mixer, Attention) and layer.mixer.kv_source_layer is not None
        ),
        per_layer=language.n_embd_per_layer * n_layers,
        n_copies=next((1 + one.shape[-1] for one in language.tensors if one.name == "altup_proj.weight"), 1),
        output_bytes=output,
    )


def _layer_widths(language: Language, index: int, tensors: Iterable[Tensor]) -> LayerWidths:
    shapes = {tensor.name.split(".", 2)[2]: tensor.shape for tensor in tensors}
    mixer = language.layers[index].mixer if language.layers else None
    n_heads = _n_heads(language, index, mixer)
    used = _number(language.facts.get("expert_used_count"), index)
    key_row, value_row = _cache_rows(shapes, mixer)
    further = shapes.get("altup_router.weight", (0, 1))[1] - 1  # copies of the stream beside the first
    return LayerWidths(
        results=sum(_result_width(name, shape, n_heads, used) for name, shape in shapes.items())
        + further * language.n_embd * STREAMS // ROOM,
        key_row=key_row,
        value_row=value_row,
        n_heads=n_heads if key_row else 0,
        state_elements=_state_elements(language, shapes),
        flash_attn=mixer is None or mixer_supported(mixer),
    )


def _result_width(name: str, shape: tuple[int, ...], n_heads: int, used: int) -> int:
    """Return the elements per token that a matrix makes; experts make as many results as are used."""
    if len(shape) < 2 or "conv" in name:
        return 2 * shape[0] if "conv" in name and len(shape) < 2 else (2 * max(shape[1:]) if len(shape) > 1 else 0)
    if len(shape) == 2:
        return shape[1]
    return shape[1] * (used if "_exps" in name else max(n_heads, 1))


def _cache_rows(shapes: Mapping[str, tuple[int, ...]], mixer: object) -> tuple[int, int]:
    if isinstance(mixer, Attention):
        return mixer.n_kv_heads * mixer.key_dim, mixer.n_kv_heads * mixer.value_dim
    if isinstance(mixer, LatentAttention) and not mixer.absorbed:
        return mixer.n_heads * (mixer.nope_dim + mixer.rope_dim), mixer.n_heads * mixer.value_dim
    if "attn_kv_a_mqa.weight" in shapes:
        row = shapes["attn_kv_a_mqa.weight"][-1]
        return row, row
    key = shapes.get("attn_k.weight") or shapes.get("attn_qkv.weight")
    if key is None:
        return 0, 0
    return key[-1], shapes.get("attn_v.weight", key)[-1]


def _n_heads(language: Language, index: int, mixer: object) -> int:
    if isinstance(mixer, (Attention, LatentAttention)):
        return mixer.n_heads
    return _number(language.facts.get("attention.head_count"), index)


def _number(value: Number, index: int) -> int:
    if isinstance(value, tuple):
        return value[index] if index < len(value) else max(value, default=0)
    return int(value) if isinstance(value, (int, float)) else 0


def _state_elements(language: Language, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if "ssm_conv1d_q.weight" in shapes:
        return shapes["attn_output.weight"][0] * shapes["ssm_norm.weight"][0]
    if "ssm_out.weight" not in shapes:
        return 0
    return shapes["ssm_out.weight"][0] * max(_number(language.facts.get("ssm.state_size"), 0), 1)


def _bytes(tensor: Tensor) -> int:
    row = 512 * FORMATS[tensor.format].block_bytes  # padding of a quantised row
    return tensor_bytes(tensor.format, tensor.shape) + row
