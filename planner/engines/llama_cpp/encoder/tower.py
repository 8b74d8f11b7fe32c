"""The tower a stage works on: its stored tensors by name, the picture's size, and the pieces every tower is made of.

Source: ``clip_graph`` in tools/mtmd/clip.cpp, llama.cpp 0.5.0-dev. A block has a bias, a gate, a layer scale or a norm
of queries where the file has the tensor: the engine asks the file, and so does this module.
"""

from __future__ import annotations

from collections.abc import Mapping

from planner.engines.llama_cpp.graph import Graph, Node
from planner.model import Number, Tensor, Vision

AXES = ("pos_a", "pos_b")  # inputs: position along either axis
DEVICE = 0  # the GPU the tower lies on, or the host where there is none


class Tower:
    """One graph under construction: ``width`` x ``height`` pixels, ``batch`` equal pictures at once.

    ``flash``: attention in one operation. ``layers``: numbers of the blocks that run, in order. ``laid_out``: columns
    and rows of tokens where the engine lays them out anew.
    """

    __slots__ = (
        "batch",
        "clamped",
        "features",
        "flash",
        "graph",
        "head_dim",
        "height",
        "inputs",
        "laid_out",
        "layers",
        "mask",
        "merge",
        "n_embd",
        "n_heads",
        "n_kv_heads",
        "overview",
        "patch",
        "prefix",
        "stored",
        "tensors",
        "vision",
        "width",
    )

    def __init__(  # noqa: PLR0913 - a picture and a way to run it
        self,
        vision: Vision,
        tensors: Mapping[str, Tensor],
        *,
        width: int,
        height: int,
        patch: int,
        merge: int,
        flash: bool,
        layers: tuple[int, ...],
        batch: int = 1,
        overview: bool = False,
        laid_out: tuple[int, int] = (0, 0),
        prefix: str = "v",
    ) -> None:
        """Begin an empty graph for one size of picture; ``prefix``: of the names of its blocks."""
        self.graph = Graph()
        self.vision = vision
        self.tensors = tensors
        self.stored: dict[str, Node] = {}
        self.inputs: dict[str, Node] = {}
        self.width, self.height, self.batch = width, height, batch
        self.patch, self.merge, self.prefix = patch, merge, prefix
        self.flash = flash
        self.layers = layers
        self.overview = overview
        self.laid_out = laid_out
        self.n_embd = vision.n_embd
        self.n_heads = vision.n_heads
        self.n_kv_heads = self.fact("attention.head_count_kv", vision.n_heads)
        self.head_dim = self.fact("attention.head_dim", 0) or vision.n_embd // max(vision.n_heads, 1)
        self.clamped = False
        self.mask: Node | None = None
        self.features: list[Node] = []

    # ---- facts and sizes

    def fact(self, key: str, default: int) -> int:
        """Return a whole number of the file's ``clip.vision.`` facts."""
        value = number_of(self.vision, key)
        return default if value is None else value

    @property
    def columns(self) -> int:
        """Patches per row."""
        return self.width // self.patch

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return self.height // self.patch

    @property
    def n_patches(self) -> int:
        """Patches of one picture."""
        return self.columns * self.rows

    def input(self, name: str, format_name: str, *widths: int) -> Node:
        """Return an input of the graph; stages that ask for the same name share it."""
        node = self.inputs.get(name)
        if node is None:
            node = self.inputs[name] = self.graph.input(name, format_name, *widths)
        return node

    # ---- stored tensors

    def has(self, name: str) -> bool:
        """Whether the file stores ``name``."""
        return name in self.tensors

    def weight(self, name: str) -> Node | None:
        """Return a stored tensor, or None."""
        node = self.stored.get(name)
        if node is None:
            tensor = self.tensors.get(name)
            if tensor is None:
                return None
            node = self.graph.stored(name, tensor.format, tensor.shape, DEVICE)
            self.stored[name] = node
        return node

    def need(self, name: str) -> Node:
        """Return a stored tensor the tower cannot run without.

        Raises:
            KeyError: the file has no such tensor.
        """
        node = self.weight(name)
        if node is None:
            raise KeyError(name)
        return node

    # ---- pieces

    def product(self, weight: str, x: Node) -> Node:
        """Return ``x`` through a stored matrix, cut to its range before and after where the tower does so.

        Raises:
            KeyError: the file has no such matrix.
            ValueError: its rows are not as wide as ``x``: the file is not of this kind.
        """
        g = self.graph
        matrix = self.need(f"{weight}.weight")
        if matrix.shape[0] != x.shape[0]:
            raise ValueError(f"{weight}: rows of {matrix.shape[0]} elements meet rows of {x.shape[0]}")
        if self.clamped:
            x = g.op("clamp", (x,))
        out = g.mul_mat(matrix, x)
        return g.op("clamp", (out,)) if self.clamped else out

    def linear(self, name: str, x: Node) -> Node:
        """Return ``x`` through a stored matrix and, where stored, its bias."""
        return self.biased(name, self.product(name, x))

    def biased(self, name: str, x: Node) -> Node:
        """Return ``x`` plus the stored bias, if there is one."""
        bias = self.weight(f"{name}.bias")
        return x if bias is None else self.graph.add(x, bias)

    def norm(self, name: str, x: Node, kind: str) -> Node:
        """Return ``x`` normalised (``layer`` or ``rms``), with the stored weight and bias of ``name``, if any."""
        word = "rms_norm" if kind == "rms" else "norm"
        return self.graph.norm(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), word=word)

    def ffn(  # noqa: PLR0913 - the traits of a feed-forward part
        self, x: Node, up: str, down: str, *, gate: str = "", squared: bool = False, bias: bool = True
    ) -> Node:
        """Return ``x`` through a feed-forward block; gated where the file stores ``gate``."""
        g = self.graph
        linear = self.linear if bias else self.product
        inner = linear(up, x)
        if gate and self.has(f"{gate}.weight"):
            inner = g.glu(linear(gate, x), inner)
        elif squared:
            inner = g.op("sqr", (g.unary(inner, "relu"),))
        else:
            inner = g.unary(inner, "gelu")
        return linear(down, inner)

    def attention(  # noqa: PLR0913 - queries, keys, values and what they meet
        self,
        q: Node,
        k: Node,
        v: Node,
        out: str,
        *,
        mask: Node | None = None,
        sinks: Node | None = None,
    ) -> Node:
        """Return attention of (head dim, heads, tokens, batch) tensors through the stored ``out``: (width, tokens)."""
        g = self.graph
        for node in (q, k, v):
            g.expand(node)
        queries, keys = g.permute(q, 0, 2, 1, 3), g.permute(k, 0, 2, 1, 3)
        if self.flash:
            mixed = flash_attention(g, (queries, keys, g.permute(v, 0, 2, 1, 3)), mask, sinks)
            x = g.reshape(mixed, mixed.shape[0] * mixed.shape[1], mixed.shape[2] * mixed.shape[3])
        else:
            values = g.cont(g.permute(v, 1, 2, 0, 3))
            scores = g.soft_max(g.mul_mat(keys, queries), mask, sinks)
            mixed = g.permute(g.mul_mat(values, scores), 0, 2, 1, 3)
            x = g.cont(mixed, mixed.shape[0] * mixed.shape[1], mixed.shape[2] * mixed.shape[3])
        return self.linear(out, x)


def flash_attention(g: Graph, qkv: tuple[Node, Node, Node], mask: Node | None, sinks: Node | None) -> Node:
    """Return attention in one operation; keys, values and mask are first copied as f16."""
    q, k, v = qkv
    keys, values = g.cast(k, "f16"), g.cast(v, "f16")
    masks = () if mask is None else (g.cast(mask, "f16"),)
    shape = (values.shape[0], q.shape[2], q.shape[1], q.shape[3])
    return g.op("flash_attn", (q, keys, values, *masks, *(() if sinks is None else (sinks,))), shape, "f32")


def number_of(vision: Vision, key: str) -> int | None:
    """Return a whole-number fact by its key, with or without ``clip.vision.`` before it."""
    value = fact_of(vision, key)
    return int(value) if isinstance(value, (int, float)) else None


def fact_of(vision: Vision, key: str) -> Number:
    """Return a fact by its key, with or without ``clip.vision.`` (or ``clip.``) before it."""
    for name in (key, f"clip.vision.{key}", f"clip.{key}"):
        if name in vision.facts:
            return vision.facts[name]
    return None
