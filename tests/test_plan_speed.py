"""The speed of whole plans: what a token reads follows the placement, and the laws of placement hold."""

from __future__ import annotations

from functools import cache

import pytest

from planner import estimate
from planner.catalog import load_model
from planner.catalog.engines import load_engine
from planner.catalog.tables import speed_table
from planner.gpu_catalog import parse_gpus
from planner.machine import Host, Machine
from planner.speed import plan_speed
from planner.speed.costs import language_cost, tower_cost
from planner.speed.parts import n_ranks, parts_of
from planner.units import GIB
from planner.workload import Workload, parse_image_size

HOST = Host(total_bytes=256 * GIB, free_bytes=256 * GIB, n_cores=16, bandwidth_bytes_per_s=80 * 10**9)
TABLE = speed_table()
PHOTO = ("1344x896",)


@cache
def model(name: str, engine: str):
    """Return a catalogue model in the form that the engine reads."""
    return load_model(name, "q4_k_m", "gguf") if engine in {"llama.cpp", "ollama"} else load_model(name, None, "hf")


def planned(name: str, engine: str, gpus: list[str], settings: dict | None = None, images=PHOTO, **workload):
    """Return model, machine, workload and budget of one plan."""
    machine = Machine(gpus=parse_gpus(gpus), host=HOST, simulated=True)
    sizes = tuple(parse_image_size(image) for image in images)
    asked = Workload(context_tokens=8192, images=sizes, **workload)
    found = load_engine(engine)
    one = model(name, engine)
    return one, machine, asked, found.budget(one, asked, machine, found.settings(**(settings or {})))


def speed(name: str, engine: str, gpus: list[str], settings: dict | None = None, images=PHOTO, **workload):
    """Return the speed of one plan."""
    nouns = planned(name, engine, gpus, settings, images, **workload)
    return plan_speed(*nouns, engine=engine, table=TABLE)


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "gemma-3-12b", "gemma-4-26b-a4b"])
def test_a_token_reads_all_but_the_embedding_and_the_idle_experts(name: str) -> None:
    """The parts' used weights are the stored ones less an untied embedding and the experts that are not chosen."""
    one, machine, _, budget = planned(name, "llama.cpp", ["RTX PRO 6000"])
    cost = language_cost(one.language)
    used = sum(part.used.n_bytes for part in parts_of(cost, machine, budget, "llama.cpp", TABLE))
    idle = sum(layer.experts.n_bytes - layer.used.n_bytes for layer in cost.layers)
    layers = sum(layer.dense.n_bytes + layer.experts.n_bytes for layer in cost.layers)
    assert used == layers - idle + cost.output.n_bytes
    assert (idle > 0) == ("a4b" in name)


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "gemma-3-12b", "gemma-4-26b-a4b"])
@pytest.mark.parametrize("gpu", ["RTX 3090", "A100 SXM 80GB"])
def test_more_gpus_do_not_speed_up_one_stream(name: str, gpu: str) -> None:
    """Under llama.cpp's layer split a second and fourth card leave a single stream no faster."""
    rates = [speed(name, "llama.cpp", [f"{gpu}:{n}"]).tokens_per_s[1] for n in (1, 2, 4)]
    assert rates == sorted(rates, reverse=True)


def test_more_layers_on_the_gpu_are_not_slower() -> None:
    """On a CUDA card each layer taken from the host makes decoding faster."""
    rates = [
        speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], {"n_gpu_layers": n}).tokens_per_s[1] for n in (0, 8, 16, 29)
    ]
    assert rates == sorted(rates)
    assert rates[-1] > 5 * rates[0]


def test_experts_on_the_host_slow_decoding_and_cross_the_link() -> None:
    """With every expert on the host decoding takes the host's bandwidth, the prompt the link's."""
    whole = speed("gemma-4-26b-a4b", "llama.cpp", ["RTX 4090"])
    split = speed("gemma-4-26b-a4b", "llama.cpp", ["RTX 4090"], {"n_cpu_moe": 99})
    assert split.tokens_per_s[1] < whole.tokens_per_s[1] / 2
    assert split.prefill.expected_s > whole.prefill.expected_s
    assert split.prefill.bound_by == "weights over PCI Express"


def test_used_weights_do_not_change_with_their_place() -> None:
    """Experts moved to the host are read there: the sum over devices stays."""
    sums = []
    for settings in ({}, {"n_cpu_moe": 10}, {"n_cpu_moe": 99}):
        one, machine, _, budget = planned("gemma-4-26b-a4b", "llama.cpp", ["RTX 4090"], settings)
        parts = parts_of(language_cost(one.language), machine, budget, "llama.cpp", TABLE)
        sums.append(sum(part.used.n_bytes for part in parts))
    assert max(sums) - min(sums) <= max(sums) // 1000


def test_tensor_parallel_ranks_share_the_work() -> None:
    """On two boards with fast links: two vLLM ranks are seen, each reads about half, and it is faster."""
    one, machine, _, budget = planned("qwen2.5-vl-7b", "vllm", ["A100 SXM 80GB:2"], {"tensor_parallel_size": 2})
    parts = parts_of(language_cost(one.language), machine, budget, "vllm", TABLE)
    single = planned("qwen2.5-vl-7b", "vllm", ["A100 SXM 80GB"])
    (whole,) = parts_of(language_cost(one.language), single[1], single[3], "vllm", TABLE)
    assert n_ranks(parts) == 2
    assert 0.45 < parts[0].used.n_bytes / whole.used.n_bytes < 0.55
    fast = speed("qwen2.5-vl-7b", "vllm", ["A100 SXM 80GB:2"], {"tensor_parallel_size": 2})
    assert fast.tokens_per_s[1] > speed("qwen2.5-vl-7b", "vllm", ["A100 SXM 80GB"]).tokens_per_s[1]


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama", "transformers", "vllm", "sglang", "lmdeploy"])
def test_every_engine_gets_a_speed(engine: str) -> None:
    """Each stage is a positive, ordered range with a basis and a bound, and fewer bits decode faster."""
    found = speed("qwen2.5-vl-7b", engine, ["RTX PRO 6000"])
    for row in found.as_mapping().values():
        assert 0 < row["low"] <= row["expected"] <= row["high"]
        assert row["basis"] in {"modelled", "assumed"}
        assert row["bound_by"]
    assert 10 < found.tokens_per_s[1] < 500


def test_images_join_the_prompt() -> None:
    """An image adds its tokens to the prompt and its encoding to the first token; without one there is none."""
    without = speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], images=())
    once, twice = (speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], images=PHOTO * n) for n in (1, 2))
    assert without.encode is None
    assert without.n_prompt_tokens == 512
    assert once.encode is not None
    assert twice.encode is not None
    assert twice.encode.expected_s == pytest.approx(2 * once.encode.expected_s)
    assert twice.n_prompt_tokens - once.n_prompt_tokens == once.n_prompt_tokens - without.n_prompt_tokens > 1000
    assert twice.first_token_s[1] > once.first_token_s[1] > without.first_token_s[1]


def test_encoding_knows_flash_attention() -> None:
    """Without flash attention the scores of a large image are moved, which takes longer."""
    fast, slow = (
        speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], {"flash_attn": word}, images=("2688x1792",)).encode
        for word in ("on", "off")
    )
    assert fast is not None
    assert slow is not None
    assert slow.expected_s > 1.5 * fast.expected_s
    assert slow.bound_by == "attention scores over memory"


def test_windows_are_skipped_by_engines_that_can() -> None:
    """A tower with windows: transformers computes far fewer pairs of a large image than llama.cpp's mask over all."""
    masked, skipped = (
        speed("qwen2.5-vl-7b", engine, ["RTX 3090"], images=("2688x1792",)).encode
        for engine in ("llama.cpp", "transformers")
    )
    assert masked is not None
    assert skipped is not None
    assert masked.expected_s > 1.5 * skipped.expected_s
    one, _, _, _ = planned("qwen2.5-vl-7b", "transformers", ["RTX 3090"])
    assert one.vision is not None
    tower, projector = tower_cost(one.vision, one.language.n_embd)
    assert 10 < tower.n_weights / projector.n_weights < 20


def test_a_resampler_waits_for_its_table() -> None:
    """llama.cpp fills a resampler's positions on one core for every slice, which a fast GPU waits for."""
    found = speed("minicpm-v-4.5", "llama.cpp", ["RTX 4090"])
    assert found.encode is not None
    assert found.encode.bound_by == "table of positions on the CPU"


def test_a_tower_on_the_host_encodes_there() -> None:
    """With the projector kept off the GPU the image takes the CPU's time."""
    on_gpu = speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"])
    on_host = speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], {"no_mmproj_offload": True})
    assert on_gpu.encode is not None
    assert on_host.encode is not None
    assert on_host.encode.expected_s > 2 * on_gpu.encode.expected_s


def test_sequences_raise_the_sum_and_lower_the_single() -> None:
    """Four sequences at once give more tokens in all and fewer to each."""
    one, four = (speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], sequences=n) for n in (1, 4))
    assert four.tokens_per_s[1] < one.tokens_per_s[1]
    assert four.decode.per_second(four.n_streams)[1] > one.tokens_per_s[1]


def test_a_longer_context_is_slower() -> None:
    """The cache is read for every token, so that a long prompt slows decoding."""
    short, long = (
        speed("qwen2.5-vl-7b", "llama.cpp", ["RTX 3090"], images=(), prompt_tokens=n).tokens_per_s[1]
        for n in (100, 7000)
    )
    assert long < short


@pytest.mark.parametrize(
    ("model", "engine", "settings", "image", "said", "not_said"),
    [
        ("qwen2.5-vl-7b", "llama.cpp", {"no_mmproj_offload": True}, "1344x672", "on a GPU helps most", "every size"),
        ("qwen2.5-vl-7b", "llama.cpp", {}, "3200x2400", "smaller or fewer images help", "on a GPU"),
        ("llama3.2-vision", "ollama", {}, "3200x2400", "the same for every size", "smaller"),
    ],
)
def test_what_would_help_is_what_can_help(model, engine, settings, image, said, not_said):
    """A dominant encoder: a GPU where it has none, smaller images where their size matters, nothing of that else."""
    request = {
        "model": model,
        "engine": engine,
        "settings": settings,
        "workload": {"context": 16384, "images": [image]},
        "machine": {"gpus": [{"name": "Tesla M40 24GB"}], "ram": "64GiB"},
    }
    found = estimate(request | ({"engine_version": "0.24"} if engine == "ollama" else {}))
    (sentence,) = [reason for reason in found["reasons"] if reason.startswith("The first token waits")]
    assert "encoding the images" in sentence
    assert said in sentence
    assert not_said not in sentence
