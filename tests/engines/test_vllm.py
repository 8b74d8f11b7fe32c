"""vLLM: what a rank loads, how a pool is cut, what the profiling run takes, and what all that leaves."""

import math
from dataclasses import replace
from statistics import median

import builders as b
import pytest
import yaml
from field import field_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from test_support import TABLES

from planner.catalog import load_data, load_model, model_names
from planner.engines.options import options_table
from planner.engines.rank_weights import rank_weights, stage_layers
from planner.engines.vllm import VllmSettings, vllm_engine
from planner.engines.vllm.budget import budget
from planner.engines.vllm.kv_cache import (
    InFlight,
    group_size,
    head_bytes,
    kv_layout,
    layer_caches,
    n_blocks_of,
    pool_tokens,
    request_blocks,
)
from planner.engines.vllm.limits import largest_max_model_len, lowest_utilization, starts
from planner.engines.vllm.settings import default_batch, default_utilization
from planner.errors import UsageError
from planner.workload import ImageSize, Workload

GIB = b.GIB
PROFILES = b.PROFILES
RULES = yaml.safe_load((PROFILES / "engines" / "vllm.yaml").read_text())
OPTIONS = yaml.safe_load((PROFILES / "engines" / "options" / "vllm.yaml").read_text())


def engine(version):
    """VLLM at one release, with its data."""
    return vllm_engine(version, TABLES, RULES, OPTIONS)


def plan(model, machine, version="0.33.0", context=8192, images=(), sequences=1, **given):
    """The budget of one model on one machine."""
    workload = Workload(context_tokens=context, images=images, sequences=sequences)
    return engine(version).budget(model, workload, machine, VllmSettings(**given))


def item(found, component, device=0):
    """The items of one component on one device."""
    return [i for i in found.devices[device].items if i.component == component]


# published loads: case, model, ranks, GiB per rank
LOADS = [
    ("vllm-10511-llama3-8b-tp1", b.llama3_8b, 1, "model_weights_GiB"),
    ("vllm-10511-llama3-8b-tp2", b.llama3_8b, 2, "model_weights_GiB"),
    ("vllm-book-llama8b-80GB", b.llama31_8b, 1, "load_weights_GB"),
    ("vllm-doc-llama8b-24GB", b.llama31_8b, 1, "load_weights_GB"),
    ("vllm-lingshu-32b-tp1", b.qwen25vl_32b, 1, "model_weights_GiB"),
    ("vllm-lingshu-32b-tp2", b.qwen25vl_32b, 2, "model_weights_GiB"),
    ("vllm-15136-qwen2.5vl-7b-tp4", b.qwen25vl_7b, 4, "load_weights_per_rank_GB"),
    ("vllm-10034-llama3.2-11b-vision-2xA10", b.mllama_11b, 2, "load_weights_per_rank_GB"),
    ("vllm-9630-llama3.2-11b-vision-h100", b.mllama_11b, 1, "load_weights_GB"),
]


def rank_gib(model, n_ranks):
    """GiB that one rank loads in bf16."""
    found = rank_weights(
        model,
        stage=0,
        n_stages=1,
        n_ranks=n_ranks,
        format_name="bf16",
        dtype_bytes=2,
        vision=True,
        split_projectors=frozenset(load_data("engines/vllm.yaml")["split_projectors"]),
    )
    return found.total_bytes / GIB


@pytest.mark.parametrize(("case", "model", "n_ranks", "key"), LOADS)
def test_weights_per_rank_against_published_loads(case, model, n_ranks, key):
    """What a rank loads, rotary tables included, is within 0.5 % of what logs print."""
    measured = field_cases()[case]["measured"][key]
    assert rank_gib(model(), n_ranks) == pytest.approx(measured, rel=0.005)


def test_weights_median_error():
    """The median error over the published loads is under a tenth of a percent."""
    cases = field_cases()
    errors = [abs(rank_gib(m(), n) / cases[c]["measured"][k] - 1) for c, m, n, k in LOADS]
    assert median(errors) < 0.001


@pytest.mark.parametrize(
    ("name", "format_name", "gib", "tolerance"),
    [
        ("qwen2.5-vl-72b", "nf4", 38.9697, 0.002),  # vLLM issue 12991
        ("internvl3-8b", "bf16", 14.8405, 0.003),  # start log of InternVL3-8B-hf, August 2025
        ("qwen2.5-vl-3b", "bf16", 7.1557, 0.006),  # gpustack issue 2489
    ],
)
def test_further_published_loads(name, format_name, gib, tolerance):
    """Loads printed in other places: quantised at load with its tower, and plain."""
    model = load_model(name, None, "hf")
    found = rank_weights(model, stage=0, n_stages=1, n_ranks=1, format_name=format_name, dtype_bytes=2, vision=True)
    assert found.total_bytes / GIB == pytest.approx(gib, rel=tolerance)


def counted(name):
    """Whether a profile brings the published count of each of its parts."""
    model = load_model(name, None, "hf")
    return model.parameters is not None and (model.vision is None or model.parameters.vision > 0)


@pytest.mark.parametrize("name", [name for name in model_names() if counted(name)])
def test_every_profile_loads_what_is_published(name):
    """In 16 bit a rank alone loads the published parameters and the rotary tables; MTP layers stay on disk."""
    model = load_model(name, None, "hf")
    found = rank_weights(
        model, stage=0, n_stages=1, n_ranks=1, format_name="bf16", dtype_bytes=2, vision=model.vision is not None
    )
    published = model.parameters.language + model.parameters.vision + model.parameters.projector
    loaded = (found.total_bytes - found.rope_bytes) // 2
    assert loaded <= published * 1.0005
    if not model.language.n_mtp_layers:
        assert loaded >= published * 0.999


def test_only_experts_are_packed_as_mxfp4():
    """Attention stays in 16 bit, experts take 17 bytes per 32 elements at an inner width padded to 256."""
    model = load_model("gpt-oss-20b", None, "hf")
    packed, plain = (
        rank_weights(
            model, stage=0, n_stages=1, n_ranks=1, format_name=word, dtype_bytes=2, vision=False
        ).language_bytes
        for word in ("mxfp4", "bf16")
    )
    experts = 24 * 32 * 3 * 2880
    assert plain - packed == experts * 2880 * 2 - (24 * 32 * 2880 * 3072 * 17 // 32) * 3


@pytest.mark.parametrize(
    ("model", "language"),
    [
        (b.qwen25vl_7b, 7615616512),
        (b.qwen25vl_32b, 32763876352),
        (b.gemma3_27b, 27009346304),
        (b.llama3_8b, 8030261248),
    ],
)
def test_structure_sums_to_the_published_count(model, language):
    """Layers, embedding and output add up to the published parameters, to the last one."""
    weights = rank_weights(model(), stage=0, n_stages=1, n_ranks=1, format_name="bf16", dtype_bytes=2, vision=False)
    assert weights.language_bytes == 2 * language


# log: bytes per token, pool GiB as printed, tokens
def test_pool_of_the_24_gib_log():
    """4.60 GiB hold 2,356 blocks of 16 tokens at 131,072 bytes a token: 37,696 tokens, 0.29 requests of 131,072."""
    case = field_cases()["vllm-doc-llama8b-24GB"]["measured"]
    layout = kv_layout(layer_caches(b.llama31_8b().language.layers, "auto", 1, hybrid=False), 16)
    assert layout.bytes_per_token == 131072
    assert round(case["cuda_blocks"] * layout.bytes_per_block / GIB, 1) == case["kv_cache_GiB"]
    assert case["cuda_blocks"] * layout.block_tokens == case["kv_tokens"]
    assert round(case["cuda_blocks"] / request_blocks(layout, 131072, InFlight()), 2) == case["max_concurrency"]


def test_pool_of_the_cross_attention_log():
    """Before groups, cross layers were stored as full attention: 4 GiB of swap are 1,638 blocks."""
    case = field_cases()["vllm-9630-llama3.2-11b-vision-h100"]["measured"]
    layout = kv_layout(layer_caches(b.mllama_11b().language.layers, "auto", 1, hybrid=False), 16)
    assert n_blocks_of(layout, 4 * GIB) == case["cpu_blocks"]
    assert round(case["gpu_blocks"] / request_blocks(layout, 512, InFlight()), 2) == case["max_concurrency"]


def test_pool_shrinks_with_ranks_only_down_to_one_head():
    """Four KV heads over four ranks are one head each, 48,128 bytes a token; over eight still one."""
    layers = b.qwen3_235b().language.layers
    four, eight = (kv_layout(layer_caches(layers, "auto", n, hybrid=True), 16) for n in (4, 8))
    assert four.bytes_per_token == eight.bytes_per_token == 48128


@pytest.mark.parametrize(
    ("dtype", "dim", "n_bytes"),
    [
        ("auto", 128, 512),
        ("fp8", 128, 256),
        ("int8_per_token_head", 128, 264),
        ("int4_per_token_head", 128, 136),
        ("nvfp4", 128, 144),
        ("turboquant_3bit_nc", 256, 198),
    ],
)
def test_bytes_of_a_head(dtype, dim, n_bytes):
    """K and V of one head and token, by cache type (vLLM 0.33.0)."""
    assert head_bytes(dtype, dim) == n_bytes


def test_groups_of_a_windowed_model():
    """52 sliding and 10 full layers: groups of 10, seven of them, one block of the pool holds ten layers' pages."""
    layout = kv_layout(layer_caches(b.gemma3_27b().language.layers, "auto", 1, hybrid=True), 16)
    assert group_size([52, 10]) == 10
    assert len(layout.groups) == 7
    assert layout.bytes_per_block == 10 * 16 * 16 * 128 * 2 * 2
    # a request of 100 k tokens needs all blocks of the full group and a window in the six others
    assert request_blocks(layout, 100_000, InFlight(batched_tokens=2048)) == 6250 + 6 * (
        math.ceil((1023 + 2048) / 16) + 1
    )


def test_pipeline_stages_spare_first_and_last():
    """A remainder of layers goes to the stages before the last."""
    assert [past - first for first, past in stage_layers(80, 3)] == [27, 27, 26]
    assert [past - first for first, past in stage_layers(62, 4)] == [15, 16, 16, 15]
    assert stage_layers(5, 1) == ((0, 5),)


def test_defaults_by_release_and_gpu():
    """The share is 0.92 from 0.20.0; batches depend on the card, and every A100 counts as small."""
    assert (default_utilization((0, 19)), default_utilization((0, 20))) == (0.9, 0.92)
    small, big = b.box(24, name="RTX 3090").gpus[0], b.box(80, name="H100").gpus[0]
    a100, b300 = b.box(80, name="NVIDIA A100-SXM4-80GB").gpus[0], b.box(270, name="B300").gpus[0]
    assert default_batch(small, (0, 33)) == default_batch(a100, (0, 33)) == (2048, 256)
    assert default_batch(big, (0, 33)) == default_batch(b300, (0, 20)) == (8192, 1024)
    assert default_batch(b300, (0, 33)) == (16384, 1024)


def test_whole_log_of_an_8b_on_80_gib():
    """The 79.14 GiB log: share 71.22, weights 14.99, peak 1.19, pool 54.93 GiB; each inside and within 1 %."""
    case = field_cases()["vllm-book-llama8b-80GB"]["measured"]
    found = plan(b.llama31_8b(), b.box(79.14, name="A100"), "0.7.3", 131072)
    kv, compute = item(found, "kv_cache")[0], item(found, "compute")[0]
    assert kv.inputs["share_bytes"] / GIB == pytest.approx(case["budget_GiB"], abs=0.01)
    assert compute.expected_bytes / GIB == pytest.approx(case["pytorch_activation_peak_GiB"], rel=0.01)
    assert kv.expected_bytes / GIB == pytest.approx(case["kv_cache_GiB"], rel=0.01)
    for predicted, key in ((kv, "kv_cache_GiB"), (compute, "pytorch_activation_peak_GiB")):
        assert predicted.low_bytes <= case[key] * GIB <= predicted.high_bytes


def test_start_log_of_a_hybrid_model():
    """Qwen3.5-4B on 0.22.0, share 0.5 of about 47.4 GiB: weights 8.61, blocks of 528, 12.85 GiB are 159.40 requests."""
    model = load_model("qwen3.5-4b", None, "hf")
    found = plan(model, b.box(47.4), "0.22.0", 1024, gpu_memory_utilization=0.5, enable_prefix_caching=False)
    weights = sum(i.expected_bytes for i in item(found, "weights")) / GIB
    assert weights == pytest.approx(8.61, rel=0.005)
    kv = item(found, "kv_cache")[0]
    assert kv.inputs["block_tokens"] == 528
    n_blocks = int(12.85 * GIB) // kv.inputs["bytes_per_block"]
    assert round(n_blocks / kv.inputs["blocks_per_request"], 2) == 159.40
    layout = kv_layout(layer_caches(model.language.layers, "auto", 1, hybrid=True), 16)
    assert pool_tokens(layout, n_blocks, 1024, kv.inputs["blocks_per_request"], (0, 22)) == 163225
    assert kv.low_bytes <= 12.85 * GIB <= kv.high_bytes
    assert kv.expected_bytes / GIB == pytest.approx(12.85, rel=0.03)


def test_start_log_of_a_hybrid_mixture():
    """Qwen3.6-35B-A3B on 0.22.0 with three drafted tokens: 71.15 GiB are 15.66 requests of 200,000."""
    layers = load_model("qwen3.5-35b-a3b", None, "hf").language.layers
    caches = layer_caches(layers, "auto", 1, hybrid=True)
    assert kv_layout(caches, 16).block_tokens == 1056  # without drafting, as other logs print
    drafting = 3 * 8192 * 2  # three more columns of the convolution
    full = next(cache for cache in caches if cache.kind == "full")
    state = next(cache for cache in caches if cache.kind == "state")
    wider = [replace(c, state_bytes=state.state_bytes + drafting) if c.kind == "state" else c for c in caches]
    layout = kv_layout([*wider, full], 16)
    assert layout.block_tokens == 1072
    n_blocks = n_blocks_of(layout, int(71.15 * GIB))
    taken = request_blocks(layout, 200_000, InFlight(state_blocks=2 + 3))
    assert round(n_blocks / taken, 2) == 15.66
    assert pool_tokens(layout, n_blocks, 200_000, taken, (0, 22)) == pytest.approx(3_131_683, rel=0.0002)


@pytest.mark.parametrize(
    ("case", "model", "total", "given"),
    [
        ("vllm-10511-llama3-8b-tp1", b.llama3_8b, 79.22, {"max_num_batched_tokens": 8192}),
        ("vllm-book-llama8b-80GB", b.llama31_8b, 79.14, {}),
        ("vllm-lingshu-32b-tp1", b.qwen25vl_32b, 79.2, {}),
    ],
)
def test_profiled_peak_is_bounded(case, model, total, given):
    """The peak that logs print lies between low and high."""
    measured = field_cases()[case]["measured"]["pytorch_activation_peak_GiB"] * GIB
    compute = item(plan(model(), b.box(total, name="A100"), "0.7.3", **given), "compute")[0]
    assert compute.low_bytes <= measured <= compute.high_bytes


def test_parts_sum_to_the_share():
    """Weights, peak, memory outside torch and pool fill the share to within one block; the rest stands outside it."""
    for version in ("0.10.2", "0.33.0"):
        found = plan(b.qwen25vl_7b(), b.box(48), version)
        device = found.devices[0]
        share = item(found, "kv_cache")[0].inputs["share_bytes"]
        outside = sum(i.expected_bytes for i in device.items if "outside the share" in i.formula)
        block = item(found, "kv_cache")[0].inputs["bytes_per_block"]
        assert 0 <= share + outside - device.expected_bytes < block
        assert device.high_bytes >= device.expected_bytes
        for i in device.items:
            assert i.low_bytes <= i.expected_bytes <= i.high_bytes


@settings(max_examples=25, deadline=None)
@given(context=st.integers(256, 30000), gib=st.integers(20, 90), seqs=st.integers(1, 300))
def test_more_free_memory_never_unfits(context, gib, seqs):
    """What starts with some free bytes starts with more, at the same share of the same card."""
    model, machine = b.qwen25vl_7b(), b.box(96)
    less = replace(machine.gpus[0], free_bytes=gib * GIB)
    more = replace(machine.gpus[0], free_bytes=(gib + 1) * GIB)
    workload = Workload(context_tokens=context)
    given_settings = VllmSettings(max_num_seqs=seqs, gpu_memory_utilization=0.5)
    before = budget(model, workload, replace(machine, gpus=(less,)), given_settings, "0.33.0")
    after = budget(model, workload, replace(machine, gpus=(more,)), given_settings, "0.33.0")
    if not before.shortfalls and not before.short_devices:
        assert not after.shortfalls
        assert not after.short_devices


@settings(max_examples=25, deadline=None)
@given(context=st.integers(64, 60000), seqs=st.integers(1, 1024))
def test_pool_never_grows_with_the_load(context, seqs):
    """More sequences or longer prompts never leave a larger pool, and a request never takes fewer blocks."""
    small = plan(b.llama31_8b(), b.box(40), context=context, max_num_seqs=seqs)
    large = plan(b.llama31_8b(), b.box(40), context=context + 64, max_num_seqs=seqs + 64)
    one, two = item(small, "kv_cache")[0], item(large, "kv_cache")[0]
    assert two.expected_bytes <= one.expected_bytes
    assert two.inputs["blocks_per_request"] >= one.inputs["blocks_per_request"]


def test_poorer_gpu_shrinks_all():
    """Every rank takes the smallest pool."""
    equal = plan(b.qwen25vl_32b(), b.box(48, 48), tensor_parallel_size=2)
    unequal = plan(b.qwen25vl_32b(), b.box(48, 44), tensor_parallel_size=2)
    assert item(unequal, "kv_cache", 0)[0].expected_bytes == item(unequal, "kv_cache", 1)[0].expected_bytes
    assert item(unequal, "kv_cache")[0].expected_bytes < item(equal, "kv_cache")[0].expected_bytes


# settings, part of the reason
REFUSED = [
    ({"tensor_parallel_size": 3}, "does not divide the 28 attention heads"),
    ({"tensor_parallel_size": 4, "pipeline_parallel_size": 4}, "needs 16 GPUs"),
    ({"max_model_len": 200_000}, "beyond the model's 128000 positions"),
    ({"quantization": "bitsandbytes"}, "left vLLM's tree at 0.28.0"),
    ({"swap_space": 4.0}, "has no option swap_space"),
    ({"gpu_memory_utilization": 1.0}, "asks for"),
    ({"gpu_memory_utilization": 0.3}, "too small for one request"),
    ({"max_num_batched_tokens": 64, "max_num_seqs": 128}, "less than max_num_seqs"),
]


@pytest.mark.parametrize(("given_settings", "reason"), REFUSED)
def test_refusals(given_settings, reason):
    """What the engine says no to at start is said beforehand, with the numbers."""
    found = plan(b.qwen25vl_7b(), b.box(*[24] * 8), **given_settings)
    assert any(reason in said for said in (*found.refusals, *found.shortfalls)), found


def test_awq_groups_limit_the_split():
    """29,568 inputs in groups of 128 are 231 groups: such a checkpoint runs on one GPU."""
    model = b.dense(
        "qwen2.5-vl-72b",
        "qwen2.5-vl",
        "qwen2vl",
        layers=80,
        embd=8192,
        ff=29568,
        heads=64,
        kv=8,
        vocab=152064,
        context=128000,
        bias=True,
    )
    assert any(
        "groups of 128" in r for r in plan(model, b.box(80, 80), quantization="awq", tensor_parallel_size=2).refusals
    )
    assert not any("groups" in r for r in plan(model, b.box(80), quantization="awq").refusals)


@pytest.mark.parametrize(
    "given_settings",
    [
        {"gpu_memory_utilization": 1.5},
        {"gpu_memory_utilization": 0.0},
        {"tensor_parallel_size": 0},
        {"kv_cache_dtype": "q4_0"},
        {"max_model_len": 0},
    ],
)
def test_impossible_settings(given_settings):
    """A value that can mean nothing is the user's to mend."""
    with pytest.raises(UsageError):
        plan(b.llama31_8b(), b.box(24), **given_settings)


def test_inverse_questions():
    """The lowest share and the longest context start; one step beyond does not."""
    model, machine = b.llama31_8b(), b.box(24)
    works = starts(model, Workload(context_tokens=4096), machine, "0.33.0")
    share = lowest_utilization(works, VllmSettings())
    assert share is not None
    assert works(VllmSettings(gpu_memory_utilization=share))
    assert not works(VllmSettings(gpu_memory_utilization=round(share - 0.01, 2)))
    longest = largest_max_model_len(works, VllmSettings(), model.language.n_context_train)
    assert longest is not None
    assert works(VllmSettings(max_model_len=longest))
    assert not works(VllmSettings(max_model_len=longest + 16))


def test_nothing_fits_a_tiny_card():
    """A card that the weights alone fill has no share that works."""
    works = starts(b.llama31_8b(), Workload(), b.box(8), "0.33.0")
    assert lowest_utilization(works, VllmSettings()) is None
    assert largest_max_model_len(works, VllmSettings(), 131072) is None


def test_images_are_counted_and_profiled():
    """Images appear in the answer; skipping their profile, or taking text only, frees the tower's peak."""
    images = (ImageSize(width=1920, height=1080),)
    seen = plan(b.qwen25vl_7b(), b.box(48), images=images)
    assert seen.image_tokens[0].tokens == 2691
    skipped = plan(b.qwen25vl_7b(), b.box(48), images=images, skip_mm_profiling=True)
    assert item(skipped, "compute")[0].high_bytes < item(seen, "compute")[0].high_bytes
    text = plan(b.qwen25vl_7b(), b.box(48), language_model_only=True)
    assert not [i for i in text.devices[0].items if i.part == "vision"]
    small = plan(b.qwen25vl_7b(), b.box(48), mm_processor_kwargs={"max_pixels": 1003520})
    assert item(small, "compute")[0].high_bytes < item(seen, "compute")[0].high_bytes


def test_emitted_command():
    """The command says what differs from the defaults, in words the release has."""
    model = replace(b.qwen25vl_7b(), hf_id="Qwen/Qwen2.5-VL-7B-Instruct")
    load = Workload(context_tokens=16384, images=(ImageSize(width=640, height=480),) * 2)
    chosen = VllmSettings(gpu_memory_utilization=0.95, tensor_parallel_size=2, enforce_eager=True)
    emitted = engine("0.33.0").emit(model, load, b.box(24, 24), chosen)
    assert emitted.command == (
        "vllm serve Qwen/Qwen2.5-VL-7B-Instruct --max-model-len 16384 --gpu-memory-utilization 0.95 "
        "--tensor-parallel-size 2 --enforce-eager --limit-mm-per-prompt '{\"image\": 2}'"
    )
    compose = yaml.safe_load(emitted.config)["services"]["vllm"]
    assert compose["image"] == "vllm/vllm-openai:v0.33.0"
    assert compose["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["0", "1"]


def test_every_setting_is_an_option():
    """Each field of the settings is an option of the table, and the other way round."""
    assert set(options_table(OPTIONS)) == set(VllmSettings.__slots__)
