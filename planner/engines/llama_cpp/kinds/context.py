"""What every kind of layer needs while its operations are listed: the graph, weights, inputs, caches and sizes."""

from __future__ import annotations

from collections.abc import Mapping

from planner.engines.llama_cpp.graph import Graph, Node
from planner.engines.llama_cpp.traits import GraphRequest
from planner.model import Attention, LatentAttention, Tensor
from planner.quantization import FORMATS


class Build:
    """One graph under construction. ``layer`` is the number of the layer being listed, -1 outside the layers."""

    def __init__(self, request: GraphRequest) -> None:
        """Begin with an empty graph; inputs, weights and caches come into being when first asked for."""
        self.request = request
        self.language = request.language
        self.traits = request.traits
        self.facts: Mapping[str, object] = request.language.facts
        self.graph = Graph()
        self.host = request.backends.host
        self.n_seqs = request.n_seqs
        self.n_tokens = request.batch_tokens
        self.n_seq_tokens = self.n_tokens // request.n_seqs
        self.n_outputs = request.n_outputs
        self.tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in request.language.tensors}
        self.used: set[str] = set()
        self._weights: dict[tuple[str, int], Node] = {}
        self._inputs: dict[str, Node] = {}
        self._caches: dict[str, Node] = {}
        self._state_rows: tuple[Node, Node] | None = None
        self.choice: Node | None = None  # of an indexer, for the layers that share it
        self.windowed = any(
            isinstance(layer.mixer, Attention) and layer.mixer.window_tokens is not None
            for layer in request.language.layers
        )
        self.widest_value = max((_value_width(layer.mixer) for layer in request.language.layers), default=0)

    @property
    def layer(self) -> int:
        """Number of the layer being listed."""
        return self.graph.layer

    def fact(self, key: str) -> float:
        """Return a hyper-parameter by its GGUF key, 0 if the file has none."""
        value = self.facts.get(key, 0)
        return float(value) if isinstance(value, (int, float)) else 0.0

    # ---- weights

    def weight(self, name: str, device: int | None = None) -> Node:
        """Return the stored tensor ``name`` on its device (or on ``device``, for those held on several)."""
        tensor = self.tensors[name]
        place = self.request.weights[name] if device is None else device
        key = (name, place)
        if key not in self._weights:
            self.used.add(name)
            self._weights[key] = self.graph.stored(name, tensor.format, tensor.shape, place)
        return self._weights[key]

    def has(self, name: str) -> bool:
        """Whether the model stores the tensor ``name``."""
        return name in self.tensors

    def of_layer(self, suffix: str) -> Node:
        """Return a tensor of the present layer, like ``attn_q.weight``."""
        return self.weight(f"blk.{self.layer}.{suffix}")

    def maybe(self, suffix: str) -> Node | None:
        """Return a tensor of the present layer if it is stored."""
        name = f"blk.{self.layer}.{suffix}"
        return self.weight(name) if name in self.tensors else None

    def linear(self, x: Node, suffix: str) -> Node:
        """Return ``x`` through a linear layer of the present layer, with bias and scale if stored."""
        out = self.graph.mul_mat(self.of_layer(suffix + ".weight"), x)
        bias = self.maybe(suffix + ".bias")
        if bias is not None:
            out = self.graph.add(out, bias)
        scale = self.maybe(suffix + ".scale")
        return out if scale is None else self.graph.mul(out, scale)

    def norm(self, x: Node, name: str, *, layer: bool = True, pin: bool = True, mean: bool = False) -> Node:
        """Return ``x`` through the weighted norm ``name``; with ``pin`` it is tied to its layer's device.

        ``mean``: it subtracts the mean even where the architecture's other norms do not.
        """
        weight = self.of_layer(name + ".weight") if layer else self.weight(name + ".weight")
        normed = self.graph.norm(x, None, word="norm" if mean or self._subtracts_mean() else "rms_norm")
        if layer and pin and self.request.pinned and self._pins_norms():
            normed.device = self.request.layer_devices[self.layer]
        normed = self.graph.mul(normed, weight)
        bias = f"blk.{self.layer}.{name}.bias" if layer else f"{name}.bias"
        return self.graph.add(normed, self.weight(bias)) if bias in self.tensors else normed

    def _subtracts_mean(self) -> bool:
        rule = self.traits.layer_norm
        return rule == "always" or (rule == "by_file" and not self.fact("attention.layer_norm_rms_epsilon"))

    def _pins_norms(self) -> bool:
        devices = self.request.layer_devices
        all_offloaded = self.host not in devices and self.request.output_device != self.host
        return self.n_tokens < 32 or all_offloaded

    # ---- inputs

    def input(self, name: str, format_name: str, *widths: int) -> Node:
        """Return the input ``name``, the same one each time."""
        if name not in self._inputs:
            self._inputs[name] = self.graph.input(name, format_name, *widths)
        return self._inputs[name]

    def tokens(self) -> Node:
        """Return the numbers of the tokens."""
        return self.input("tokens", "i32", self.n_tokens)

    def positions(self) -> Node:
        """Return the positions of the tokens: one number each, or four."""
        words = self.traits.positions
        sections = self.facts.get("rope.dimension_sections")
        sectioned = words == "sectioned" and isinstance(sections, tuple) and len(sections) > 1 and all(sections[:2])
        return self.input("positions", "i32", self.n_tokens * (4 if words == "four" or sectioned else 1))

    def output_rows(self) -> Node:
        """Return the numbers of the rows that need logits."""
        return self.input("output rows", "i32", self.n_outputs)

    def mask(self, *, window: bool) -> Node:
        """Return the attention mask of the full or of the window cache."""
        n_streams = self.request.n_streams
        format_name = "f16" if self.request.flash_attn else "f32"
        name = "window mask" if window else "mask"
        return self.input(name, format_name, self.cells(window=window), self.n_tokens // n_streams, 1, n_streams)

    def cells(self, *, window: bool) -> int:
        """Return the cells of one stream of a cache."""
        return self.request.n_window_cells if window else self.request.n_cells

    def k_rows(self, *, window: bool) -> Node:
        """Return the cells into which keys are written."""
        return self.input("window k cells" if window else "k cells", "i64", self.n_tokens)

    def v_rows(self, *, window: bool) -> Node:
        """Return the cells into which values are written; one per element where the cache lies transposed."""
        width = self.widest_value if self.request.transposed else 1
        return self.input("window v cells" if window else "v cells", "i64", self.n_tokens * width)

    def rotation(self, which: str, head_dim: int, *, window: bool) -> Node | None:
        """Return the Hadamard matrix by which a quantised cache is rotated, None where it is not."""
        cache_type = self.request.cache_type_k if which == "k" else self.request.cache_type_v
        if not FORMATS[cache_type].quantized or head_dim % 64 or self._first_head_dim(which) % 64:
            return None
        size = 64
        while which == "k" and head_dim % (2 * size) == 0:
            size *= 2
        return self.input(f"{'window ' if window else ''}{which} rotation", "f32", size, size)

    def _first_head_dim(self, which: str) -> int:
        for layer in self.language.layers:
            if isinstance(layer.mixer, Attention):
                return layer.mixer.key_dim if which == "k" else layer.mixer.value_dim
        return 0

    def state_rows(self) -> tuple[Node, Node]:
        """Return the rows of recurrent state in use, and the surplus ones (none in the worst case)."""
        if self._state_rows is None:
            numbers = self.input("state rows", "i32", self.n_seqs)
            g, end = self.graph, 4 * self.n_seqs
            self._state_rows = g.view(numbers, (self.n_seqs,)), g.view(numbers, (0,), offset=end)
        return self._state_rows

    # ---- caches

    def cache(self, name: str, format_name: str, shape: tuple[int, ...], layer: int) -> Node:
        """Return the cache ``name`` of ``layer``, on the device that holds it."""
        key = f"{name}.{layer}"
        if key not in self._caches:
            device = self.request.cache_devices[layer]
            self._caches[key] = self.graph.stored(key, format_name, shape, device, weight=False)
        return self._caches[key]

    def state(self, name: str, n_elements: int) -> Node:
        """Return the recurrent state ``name`` of the present layer: one row per sequence."""
        return self.cache(name, "f32", (n_elements, self.n_seqs), self.layer)


def _value_width(mixer: object) -> int:
    if isinstance(mixer, Attention):
        return mixer.n_kv_heads * mixer.value_dim
    if isinstance(mixer, LatentAttention):
        return mixer.kv_lora_rank if mixer.absorbed else mixer.n_heads * mixer.value_dim
    return 0
