"""What CUDA keeps alive for fused kernels: groups of operations whose tensors are released later than their readers.

Source: llama.cpp 0.5.0-dev, ggml-cuda.cu (``ggml_backend_cuda_graph_optimize``). Two groups change memory: the weighted
sum of experts and the top-k router. Both are looked for among the operations of one split only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from planner.engines.llama_cpp.graph import Node

MAX_FUSED_EXPERTS = 15
_ODD_EXPERT_COUNTS = (288, 576)

KeepAlives = dict[Node, list[Node]]  # after this node: these tensors are read once more


def keep_alives(nodes: Sequence[Node], following: Node | None, uses: Counter[Node], kept: KeepAlives) -> None:
    """Note in ``kept`` which tensors the fused groups of one split keep, and until after which node.

    Args:
        nodes: the split's operations in order, views included.
        following: the first operation after the split.
        uses: how often each tensor is an operand in the whole graph.
        kept: what earlier splits keep; added to.
    """
    i = 0
    while i < len(nodes):
        weighted = _weighted_sum(nodes, i, uses)
        if weighted is not None:
            until, tensors, n_nodes = weighted
            _keep(kept, until, tensors)
            i += n_nodes - 1
        n_nodes = _router_length(nodes, i, uses)
        if n_nodes:
            until_node = nodes[i + n_nodes] if i + n_nodes < len(nodes) else following
            if until_node is not None:
                group = nodes[i : i + n_nodes]
                _keep(kept, until_node, [t for node in group for t in (node, *node.operands)])
            i += n_nodes - 1
        i += 1


def _keep(kept: KeepAlives, until: Node, tensors: Sequence[Node]) -> None:
    already = kept.setdefault(until, [])
    for tensor in tensors:
        if tensor not in already:
            already.append(tensor)


def _factors(node: Node) -> tuple[Node, Node] | None:
    """Return (full, broadcast) of a product whose second factor has one element per row."""
    if node.op != "mul" or node.format != "f32":
        return None
    narrow = (1, *node.shape[1:])
    a, b = node.operands
    for full, factor in ((a, b), (b, a)):
        if full.shape == node.shape and factor.shape == narrow and full.is_contiguous and factor.is_contiguous:
            return full, factor
    return None


def _weighted_sum(nodes: Sequence[Node], i: int, uses: Counter[Node]) -> tuple[Node, list[Node], int] | None:
    """Match experts * weights (or experts * scale * weights), k views of it and their k-1 sums, from node ``i``."""
    first = nodes[i]
    if first.op != "mul":
        return None
    outer = _factors(first)
    if outer is None:
        return None
    product, kept, n_products = first, list(outer), 1
    if i + 1 < len(nodes) and nodes[i + 1].op == "mul":
        second = _factors(nodes[i + 1])
        if second is not None and second[0] is first:
            product, kept, n_products = nodes[i + 1], [*outer, second[1]], 2
    n_experts = product.shape[1]
    n_nodes = 2 * n_experts + n_products - 1
    if not 2 <= n_experts <= MAX_FUSED_EXPERTS or i + n_nodes > len(nodes):
        return None
    group = nodes[i : i + n_nodes]
    if not _is_sum_of_views(group[n_products:], product) or not _only_used_inside(group, {group[-1]}, uses):
        return None
    return group[-1], kept, n_nodes


def _is_sum_of_views(nodes: Sequence[Node], product: Node) -> bool:
    """Whether ``nodes`` are views of ``product``, expert by expert, and the chain of their sums."""
    views: list[Node] = []
    total: Node | None = None
    n_sums = 0
    for node in nodes:
        if node.op == "view" and node.operands[0] is product:
            views.append(node)
        elif node.op == "add" and len(views) >= 2 and n_sums + 1 < len(views):
            expected = (views[0] if total is None else total, views[n_sums + 1])
            if node.operands != expected:
                return False
            total = node
            n_sums += 1
        else:
            return False
    return len(views) == product.shape[1] and n_sums == len(views) - 1


def _only_used_inside(group: Sequence[Node], results: set[Node], uses: Counter[Node]) -> bool:
    """Whether nothing outside ``group`` reads its tensors, ``results`` excepted, and no view looks outside."""
    inside = Counter(operand for node in group for operand in node.operands)
    members = set(group)
    return all(
        node in results
        or (not node.is_output and inside[node] == uses[node] and (node.root is None or node.root in members))
        for node in group
    )


def _router_length(nodes: Sequence[Node], i: int, uses: Counter[Node]) -> int:
    """Return how many nodes from ``i`` on form a fused top-k router; 0 for none."""
    if nodes[i].op not in ("unary", "soft_max", "argsort"):
        return 0
    group = _router(nodes, i)
    if group is None:
        return 0
    n_nodes, ids = group
    members = nodes[i : i + n_nodes]
    experts = ids.strides[1] // ids.strides[0]
    power_of_two = experts & (experts - 1) == 0 and experts <= 512
    if not power_of_two and experts not in _ODD_EXPERT_COUNTS:
        return 0
    if members[0].op == "soft_max" and len(members[0].operands) > 1:
        return 0
    logits, weights = members[0].operands[0], members[-1]
    if not logits.is_contiguous or not weights.is_contiguous:
        return 0
    return n_nodes if _only_used_inside(members, {ids, members[-1]}, uses) else 0


def _router(nodes: Sequence[Node], i: int) -> tuple[int, Node] | None:
    """Match gate, reshape, [bias], argsort, view, get_rows, [normalisation], [scale]; return length and the ids."""
    gate = nodes[i]
    if gate.op == "argsort" or (gate.op == "unary" and gate.kind != "sigmoid"):
        return None  # a soft-max after the selection is matched by the engine, but adds no reader
    words = [node.op for node in nodes[i : i + 13]]
    biased = len(words) > 2 and words[2] == "add" and nodes[i + 2].operands[0] is gate
    head = ["reshape", "add", "argsort", "view", "get_rows"] if biased else ["reshape", "argsort", "view", "get_rows"]
    if words[1 : 1 + len(head)] != head:
        return None
    scores = nodes[i + 2] if biased else gate
    reshaped, argsort, view, rows = nodes[i + 1], *nodes[i + len(head) - 2 : i + len(head) + 1]
    if (
        reshaped.operands[0] is not gate
        or argsort.operands[0] is not scores
        or view.operands[0] is not argsort
        or rows.operands != (reshaped, view)
    ):
        return None
    n = 1 + len(head)
    if words[n : n + 5] == ["reshape", "sum_rows", "clamp", "div", "reshape"] and _is_normalisation(nodes, i + n):
        n += 5
    if words[n : n + 1] == ["scale"] and nodes[i + n].operands[0] is nodes[i + n - 1]:
        n += 1
    return n, view


def _is_normalisation(nodes: Sequence[Node], i: int) -> bool:
    reshaped, total, clamped, ratio, back = nodes[i : i + 5]
    return (
        reshaped.operands[0] is nodes[i - 1]
        and total.operands[0] is reshaped
        and clamped.operands[0] is total
        and ratio.operands == (reshaped, clamped)
        and back.operands[0] is ratio
    )
