"""Graphs, cuts and keep-alives on graphs small enough to follow by hand."""

from collections import Counter

import pytest

from planner.engines.llama_cpp.backend import Backends, head_sizes_supported, scratch_bytes
from planner.engines.llama_cpp.fusion import keep_alives
from planner.engines.llama_cpp.graph import Graph
from planner.engines.llama_cpp.schedule import arenas, simulate
from planner.engines.llama_cpp.splits import assign, cut

N_TOKENS, WIDTH = 64, 256
ONE_GPU = Backends(n_gpus=1)


def two_products(g, *, first_on, second_on):
    """List x -> A x -> B (A x), the weights on the given devices."""
    x = g.input("x", "f32", WIDTH, N_TOKENS)
    for name, device in (("a", first_on), ("b", second_on)):
        x = g.mul_mat(g.stored(name, "f16", (WIDTH, WIDTH), device), x)
    return g.expand(x)


def test_operands_come_before_their_readers_from_left_to_right():
    """Execution order is depth first over the operands, the leftmost branch first."""
    g = Graph()
    x = g.input("x", "f32", 8, 2)
    left, right = g.unary(x, "silu"), g.unary(x, "gelu")
    g.expand(g.mul(left, g.scale(right)))
    assert [node.op for node in g.nodes] == ["unary", "unary", "scale", "mul"]
    assert g.nodes[0] is left
    assert g.leafs == [x]


def test_views_span_their_gaps():
    """A strided view counts bytes from its first to its last element, as a copy of it will."""
    g = Graph()
    x = g.input("x", "f32", 96, 10)
    part = g.view(x, (32, 10), (96 * 4,), offset=32 * 4)
    assert part.n_bytes == 9 * 96 * 4 + 32 * 4
    assert not part.is_contiguous
    assert g.transpose(x).shape == (10, 96, 1, 1)
    assert g.cont(part).n_bytes == 32 * 10 * 4


@pytest.mark.parametrize(("n_tokens", "device"), [(31, 1), (32, 0)])
def test_large_batches_take_host_weights_to_the_gpu(n_tokens, device):
    """A product with a weight on the host runs on the first GPU from a batch of 32 on."""
    g = Graph()
    product = g.expand(
        g.mul_mat(g.stored("w", "f16", (WIDTH, WIDTH), ONE_GPU.host), g.input("x", "f32", WIDTH, n_tokens))
    )
    assign(g, ONE_GPU)
    assert product.device == device


def test_without_op_offload_host_weights_are_used_on_the_host():
    """The switch keeps every product with its weight."""
    g = Graph()
    product = two_products(g, first_on=1, second_on=1)
    assign(g, Backends(n_gpus=1, op_offload=False))
    assert product.device == 1


def test_each_host_weight_begins_a_cut_so_that_its_copy_is_released():
    """Two copied weights never lie in the arena together: the larger one counts."""
    g = Graph()
    two_products(g, first_on=1, second_on=1)
    assign(g, ONE_GPU)
    splits = cut(g, ONE_GPU)
    assert [len(split.inputs) for split in splits] == [2, 1]


def test_a_tensor_is_copied_once_per_device():
    """Several readers on one device share the copy made for the first."""
    g, backends = Graph(), Backends(n_gpus=2)
    x = g.mul_mat(g.stored("a", "f16", (WIDTH, WIDTH), 0), g.input("x", "f32", WIDTH, N_TOKENS))
    y = g.mul_mat(g.stored("b", "f16", (WIDTH, WIDTH), 1), x)
    z = g.mul_mat(g.stored("c", "f16", (WIDTH, WIDTH), 1), x)
    g.expand(g.add(y, z))
    assign(g, backends)
    crossing = [source for split in cut(g, backends) for source, _ in split.inputs if source is x]
    assert len(crossing) == 1


def test_pipelining_keeps_four_copies_of_what_crosses():
    """With four copies every tensor that enters a device takes four times its bytes there."""
    sizes = []
    for n_copies in (1, 4):
        g = Graph()
        two_products(g, first_on=0, second_on=1)
        found, _ = arenas(g, Backends(n_gpus=2, n_copies=n_copies))
        sizes.append(found.arena_bytes[1])
    row = 4 * WIDTH * N_TOKENS
    assert sizes == [row + row, 4 * row + row]


def expert_sum(n_used, *, read_elsewhere=False):
    """List experts * weights and the sum over the experts used; return graph, product and weights."""
    g = Graph()
    experts = g.unary(g.input("experts", "f32", WIDTH, n_used, N_TOKENS), "silu")
    weights = g.unary(g.input("weights", "f32", 1, n_used, N_TOKENS), "sigmoid")
    product = g.expand(g.mul(experts, weights))
    views = [
        g.expand(g.view(product, (WIDTH, N_TOKENS), (product.strides[2],), offset=i * product.strides[1]))
        for i in range(n_used)
    ]
    total = views[0]
    for view in views[1:]:
        total = g.expand(g.add(total, view))
    if read_elsewhere:
        g.expand(g.scale(product))
    return g, experts, weights, total


@pytest.mark.parametrize(("n_used", "fused"), [(2, True), (8, True), (15, True), (16, False)])
def test_fused_sums_of_two_to_fifteen_experts_keep_their_operands(n_used, fused):
    """The experts' results and the weights live until the sum is done, so the product cannot work in place."""
    g, experts, weights, total = expert_sum(n_used)
    kept = {}
    keep_alives(g.nodes, None, Counter(t for node in g.nodes for t in node.operands), kept)
    assert kept == ({total: [experts, weights]} if fused else {})


def test_a_product_read_elsewhere_is_not_fused():
    """A group whose inside is read from outside stays as it is."""
    g, *_ = expert_sum(4, read_elsewhere=True)
    kept = {}
    keep_alives(g.nodes, None, Counter(t for node in g.nodes for t in node.operands), kept)
    assert kept == {}


def test_fusion_costs_the_product_its_place():
    """On a GPU the fused product needs room beside the experts' results; on the host it does not."""

    def peak(backends, device):
        g, *_ = expert_sum(8)
        for node in g.nodes:
            node.device = device
        # keep-alives are looked for in graphs with experts, which the argsort of a router betrays
        g.expand(g.op("argsort", (g.input("scores", "f32", 8, N_TOKENS),), format_name="i32"))
        return simulate(g, backends).reservation.arena_bytes[device]

    block = 4 * WIDTH * 8 * N_TOKENS
    assert peak(ONE_GPU, 0) - peak(ONE_GPU, 1) > block * 0.9


@pytest.mark.parametrize(
    ("key_dim", "value_dim", "n_grouped", "may_group", "supported"),
    [
        (128, 128, 1, False, True),
        (88, 88, 1, False, False),
        (192, 128, 16, True, True),
        (192, 128, 1, False, False),
        (576, 512, 16, True, True),
        (512, 512, 1, False, False),
        (256, 128, 4, True, False),
    ],
)
def test_head_sizes_of_flash_attention(key_dim, value_dim, n_grouped, may_group, supported):
    """CUDA's list of head sizes, some only where several query heads share a key head."""
    assert head_sizes_supported(key_dim, value_dim, n_grouped, may_group=may_group) is supported


@pytest.mark.parametrize(("cache_type", "n_copies"), [("f16", 0), ("q8_0", 2)])
def test_flash_attention_converts_a_cache_of_another_type(cache_type, n_copies):
    """A cache that is not f16 costs an f16 copy of one layer's keys and of its values."""
    g, head, heads, cells = Graph(), 128, 8, 512
    q = g.permute(g.input("q", "f32", head, heads, N_TOKENS), 0, 2, 1, 3)
    cache = g.stored("cache", cache_type, (head * heads, cells), 0, weight=False)
    window = (head, heads, cells)
    packed = g.view(cache, window)
    k = g.permute(packed, 0, 2, 1, 3)
    v = g.permute(g.view(g.stored("v", cache_type, (head * heads, cells), 0, weight=False), window), 0, 2, 1, 3)
    mask = g.input("mask", "f16", cells, N_TOKENS)
    attention = g.op("flash_attn", (q, k, v, mask), (head, heads, N_TOKENS, 1), "f32")
    assert scratch_bytes(attention, 890) == n_copies * 2 * head * heads * cells
