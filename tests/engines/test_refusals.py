"""What engines refuse at start, said beforehand; and the pieces that all serving engines share."""

from dataclasses import replace

import builders as b
import pytest
import yaml

from planner.catalog import load_model
from planner.catalog.engines import load_engine
from planner.engines import refusals
from planner.engines.containers import Container, compose_file, kubernetes_deployment
from planner.engines.options import Option, arguments, missing_options
from planner.engines.weight_formats import checkpoint_note, linear_bytes, weight_format
from planner.errors import UsageError
from planner.model import Language, LatentAttention, Layer
from planner.workload import ImageSize, Workload


def latent():
    """One layer of latent attention."""
    mixer = LatentAttention(n_heads=16, kv_lora_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    layer = Layer(mixer=mixer, ffn=None)
    return Language(architecture="deepseek2", n_embd=2048, n_vocab=1000, n_context_train=4096, layers=(layer,))


def narrow():
    """Heads of 80 elements, which blocks of 32 do not divide."""
    return b.dense(
        "n", "llama", "llama", layers=2, embd=2560, ff=64, heads=32, kv=32, dim=80, vocab=100, context=64
    ).language


@pytest.mark.parametrize(
    ("said", "part"),
    [
        (refusals.quantized_v_needs_flash_attention("q8_0", "off"), "needs flash attention"),
        (refusals.quantized_v_needs_flash_attention("q8_0", "auto"), None),
        (refusals.quantized_v_needs_flash_attention("f16", "off"), None),
        (refusals.cache_block_divides_head(narrow(), "q8_0", "f16", "auto"), "do not divide the head size 80"),
        (refusals.cache_block_divides_head(narrow(), "f16", "q4_0", "on"), "cache_type_v q4_0"),
        (refusals.cache_block_divides_head(narrow(), "q8_0", "f16", "off"), None),
        (refusals.cache_block_divides_head(b.llama31_8b().language, "q8_0", "q8_0", "on"), None),
        (refusals.latent_needs_equal_types(latent(), "q8_0", "f16"), "must be equal"),
        (refusals.latent_needs_equal_types(latent(), "q8_0", "q8_0"), None),
        (refusals.latent_needs_equal_types(b.llama31_8b().language, "q8_0", "f16"), None),
        (refusals.image_needs_ubatch(128, 256, non_causal=True), "at least 256"),
        (refusals.image_needs_ubatch(512, 256, non_causal=True), None),
        (refusals.image_needs_ubatch(128, 4096, non_causal=False), None),
        (refusals.heads_divide(b.qwen25vl_7b().language, 3, "tp"), "28 attention heads; use 1 or 2"),
        (refusals.heads_divide(b.qwen25vl_7b().language, 4, "tp"), None),
        (refusals.kv_heads_divide(b.qwen25vl_7b().language, 6, "tp"), "4 KV heads"),
        (refusals.kv_heads_divide(b.qwen25vl_7b().language, 8, "tp"), None),
        (refusals.share_in_range(1.2, "share"), "must be above 0"),
        (refusals.share_in_range(0.5, "share"), None),
    ],
)
def test_predicates(said, part):
    """Each predicate refuses its case in one line and nothing else."""
    assert (part in said and "\n" not in said) if part else said is None


@pytest.mark.parametrize(
    ("name", "n_bytes"),
    [
        ("bf16", 2 * 4096 * 11008),
        ("fp8", 4096 * 11008 + 2 * 4096),
        ("fp8_block", 4096 * 11008 + 4 * 32 * 86),
        ("awq", 4096 * 11008 // 2 + 2 * 4096 * 86 + 4096 * 86 // 2),
        ("gptq", 4096 * 11008 // 2 + 2 * 4096 * 86),
        ("nvfp4", 4096 * 11008 // 2 + 4096 * 688),
        ("mxfp4", 4096 * 11008 // 2 + 4096 * 344),
    ],
)
def test_bytes_of_a_quantised_linear(name, n_bytes):
    """4,096 outputs of 11,008 inputs, with the scales and zero points that each format stores."""
    assert linear_bytes(name, 4096, 11008) == n_bytes


def test_format_words():
    """Engines' own words mean formats; an unknown one is the user's to mend."""
    assert weight_format("AWQ_Marlin") == "awq"
    assert weight_format("bitsandbytes") == "nf4"
    with pytest.raises(UsageError, match="not known"):
        weight_format("q4_k_m")


OPTIONS = {
    "new": Option(flag="--new", since="2.0"),
    "old": Option(flag="--old", until="1.5"),
    "on": Option(flag="--on"),
}


def test_options_by_release():
    """An option that a release does not have is refused, others become words."""
    assert missing_options(OPTIONS, {"new": 1, "old": 1}, "X", "1.0") == ("X 1.0 has no option new (since 2.0)",)
    assert missing_options(OPTIONS, {"new": 1, "old": 1}, "X", "2.0") == (
        "X 2.0 has no option old (since 0, until 1.5)",
    )
    assert arguments(OPTIONS, {"on": True, "new": {"image": 2}, "old": 0.5}) == [
        "--on",
        "--new",
        '{"image": 2}',
        "--old",
        "0.5",
    ]
    assert arguments(OPTIONS, {"on": False}) == ["--no-on"]


BOX = Container(
    name="server",
    image='evil"image: {x}',
    arguments=("--model", "a b", "#: '\"", "no"),
    port=8000,
    n_gpus=2,
    host_bytes=(12 << 30) + 1,
    environment=(("OLLAMA_KV_CACHE_TYPE", "q8_0"), ("FLAG", "1")),
)


def test_compose_file_parses_to_what_was_meant():
    """Any word survives: quotes, hashes and YAML's own words stay strings."""
    service = yaml.safe_load(compose_file(BOX))["services"]["server"]
    assert service["image"] == BOX.image
    assert service["command"] == list(BOX.arguments)
    assert service["environment"] == dict(BOX.environment)
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == ["0", "1"]


def test_kubernetes_deployment_asks_for_what_the_plan_needs():
    """GPUs and host memory, rounded up, are both requested and limited."""
    data = yaml.safe_load(kubernetes_deployment(BOX))
    container = data["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"memory": "13Gi", "nvidia.com/gpu": "2"}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert container["args"] == list(BOX.arguments)
    assert container["env"][0] == {"name": "OLLAMA_KV_CACHE_TYPE", "value": "q8_0"}
    assert {mount["name"] for mount in container["volumeMounts"]} == {"models", "shm"}


@pytest.mark.parametrize("name", ["vllm", "lmdeploy", "sglang", "ollama"])
def test_engines_come_with_their_data(name):
    """Every serving engine plans a catalogue model with an image, and its parts add up."""
    engine = load_engine(name)
    gguf = name == "ollama"
    model = load_model("qwen2.5-vl-7b", "q4_k_m" if gguf else None, "gguf" if gguf else "hf")
    load = Workload(context_tokens=4096, images=(ImageSize(width=1280, height=720),))
    assert engine.loads(model).verdict == "supported"
    found = engine.budget(model, load, b.box(48), engine.settings())
    assert not found.refusals
    assert not found.shortfalls
    assert not found.short_devices
    assert found.image_tokens[0].tokens > 1000
    for device in found.devices:
        assert device.expected_bytes == sum(item.expected_bytes for item in device.items)
        assert all(i.low_bytes <= i.expected_bytes <= i.high_bytes for i in device.items)
        assert all(i.source and i.formula for i in device.items)
    assert engine.emit(model, load, b.box(48), engine.settings()).command
    boxed = engine.facts["container"](model, load, b.box(48), engine.settings())
    assert yaml.safe_load(compose_file(boxed))["services"][name]["image"].endswith(engine.version)
    assert yaml.safe_load(kubernetes_deployment(boxed))["kind"] == "Deployment"


def test_quantisation_at_load_and_packed_checkpoints():
    """FP8 is a word of the command; AWQ needs another checkpoint, and the plan says so."""
    model = load_model("qwen2.5-vl-7b", "fp8", "hf")
    engine = load_engine("vllm")
    assert "--quantization fp8" in engine.emit(model, Workload(), b.box(24), engine.settings()).command
    assert not checkpoint_note(model)
    packed = replace(model, quantization="awq")
    assert "awq" in checkpoint_note(packed)[0]
    assert "--quantization" not in engine.emit(packed, Workload(), b.box(24), engine.settings()).command
