"""Laws of the transformers engine, its settings and the program it writes."""

from __future__ import annotations

import ast
from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers_rows import BIG, component, engine

from planner.catalog.data import load_data
from planner.catalog.models import load_model
from planner.engines.transformers.forms import forms_of
from planner.engines.transformers.peak import QUANTITIES
from planner.engines.transformers.settings import TransformersSettings
from planner.errors import UsageError
from planner.machine import Host, Machine
from planner.strict import read_record
from planner.units import GIB
from planner.workload import ImageSize, Workload

MODELS = ("qwen2.5-vl-7b", "gemma-3-4b", "llava-1.5-7b", "llama-3.2-11b-vision", "qwen3-vl-30b-a3b", "internvl3-8b")
SIZES = st.builds(ImageSize, width=st.integers(64, 3000), height=st.integers(64, 3000))


def running(name: str, *, batch=1, prompt=64, images=(), machine=BIG, **words) -> int:
    """Return cache and compute of a prefill, with the rows that windows will cut."""
    workload = Workload(context_tokens=1, batch=batch, prompt_tokens=prompt, images=tuple(images), answer_tokens=0)
    found = engine().budget(load_model(name, None, "hf"), workload, machine, TransformersSettings(**words))
    cut = sum(item.expected_bytes for item in found.devices[0].items if item.formula.startswith("rows beyond"))
    return component(found, "kv_cache") + component(found, "compute") + cut


@given(
    name=st.sampled_from(MODELS),
    prompt=st.integers(1, 20_000),
    more=st.integers(1, 5_000),
    batch=st.integers(1, 16),
    attn=st.sampled_from(["sdpa", "eager"]),
    dtype=st.sampled_from(["bf16", "fp16", "fp32"]),
    images=st.lists(SIZES, max_size=3),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_more_of_anything_never_needs_less(name, prompt, more, batch, attn, dtype, images):
    """Bytes do not shrink with a longer prompt, one more request, one more image, padding or all logits."""
    words = {"attn_implementation": attn, "dtype": dtype}
    base = running(name, batch=batch, prompt=prompt, images=images, **words)
    assert running(name, batch=batch, prompt=prompt + 16 * more, images=images, **words) >= base
    assert running(name, batch=batch + 1, prompt=prompt, images=images, **words) >= base
    assert running(name, batch=batch, prompt=prompt, images=[*images, *images[:1]], **words) >= base
    assert running(name, batch=batch, prompt=prompt, images=images, logits="all", **words) >= base


@pytest.mark.parametrize("name", MODELS)
def test_eager_and_wider_types_need_more(name):
    """Eager attention is no cheaper than sdpa at length, and fp32 no cheaper than 16 bit."""
    sdpa = running(name, prompt=4000)
    assert running(name, prompt=4000, attn_implementation="eager") > sdpa
    assert running(name, prompt=4000, dtype="fp32") > sdpa
    assert running(name, prompt=4000, attn_implementation="flash_attention_2") <= sdpa


def test_quantised_linears_unpack_as_they_run():
    """The nf4 budget has room for the largest matrix in 16 bit: 18944 x 3584 x 2 bytes in a 7B model."""
    model, chosen = load_model("qwen2.5-vl-7b", None, "hf"), TransformersSettings(load_in="nf4")
    found = engine().budget(model, Workload(prompt_tokens=64), BIG, chosen).devices[0].items
    assert [item.high_bytes for item in found if "unpacked" in item.formula] == [18944 * 3584 * 2]


def test_cache_grows_as_published():
    """36 layers, 8 KV heads of 128 in bf16: 8192 tokens more are 1152 MiB more, as published for an 8B text model."""
    model = load_model("qwen3-vl-8b", None, "hf")
    sizes = []
    for prompt in (6144 + 2048, 14336 + 2048):
        workload = Workload(prompt_tokens=prompt, answer_tokens=0, context_tokens=1)
        sizes.append(component(engine().budget(model, workload, BIG, TransformersSettings()), "kv_cache"))
    assert sizes[1] - sizes[0] == (17963 - 16811) * 2**20


@pytest.mark.parametrize("name", MODELS)
def test_bounds_are_ordered(name):
    """Every item has low <= expected <= high, a formula and a source."""
    workload = Workload(images=(ImageSize(width=1024, height=768),))
    found = engine().budget(load_model(name, None, "hf"), workload, BIG, TransformersSettings())
    for item in (item for device in found.devices for item in device.items):
        assert 0 <= item.low_bytes <= item.expected_bytes <= item.high_bytes
        assert item.formula
        assert item.source


def test_without_a_gpu_all_is_on_the_host():
    """A box without GPUs runs on the CPU: weights, cache and compute in host memory."""
    box = Machine(gpus=(), host=Host(total_bytes=64 * GIB, free_bytes=64 * GIB, n_cores=8))
    found = engine().budget(load_model("qwen3-vl-2b", None, "hf"), Workload(), box, TransformersSettings())
    assert [device.device for device in found.devices] == ["Host"]
    assert {item.component for item in found.devices[0].items} == {"weights", "kv_cache", "compute", "overhead"}


def test_images_for_a_text_model_are_refused():
    """A model without a tower takes no images, and the message says what to do."""
    workload = Workload(images=(ImageSize(width=8, height=8),))
    with pytest.raises(UsageError, match="takes no images"):
        engine().budget(load_model("llama-3.1-8b", None, "hf"), workload, BIG, TransformersSettings())


def test_flash_attention_refuses_fp32():
    """The kernel has no fp32; the refusal names the way out."""
    chosen = TransformersSettings(dtype="fp32", attn_implementation="flash_attention_2")
    found = engine().budget(load_model("llama-3.1-8b", None, "hf"), Workload(), BIG, chosen)
    assert "sdpa" in found.refusals[0]


@pytest.mark.parametrize("name", ["molmo-7b-d", "kimi-vl-a3b", "phi-3.5-vision", "deepseek-vl2"])
def test_unlisted_class_is_a_labelled_bound(name):
    """A modelling class that was not followed gets a wide bound, says so, and is not called modelled."""
    model = load_model(name, None, "hf")
    found = engine().budget(model, Workload(prompt_tokens=64), BIG, TransformersSettings())
    item = next(item for item in found.devices[0].items if item.component == "compute")
    assert item.basis == "assumed"
    assert item.high_bytes > item.expected_bytes * 1.2
    assert any("not traced" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "words"),
    [("llama-4-scout", "no flash_attention_2"), ("gemma-4-31b", "up to 256"), ("qwen2.5-vl-7b", None)],
)
def test_flash_attention_where_the_class_or_the_heads_do_not_take_it(name, words):
    """Refused with the way out where the class has none or heads are wider than the kernel takes; else not."""
    chosen = TransformersSettings(attn_implementation="flash_attention_2")
    found = engine().budget(load_model(name, None, "hf"), Workload(), BIG, chosen).refusals
    assert bool(found) == (words is not None)
    assert all(words in refusal and "sdpa" in refusal for refusal in found)


@pytest.mark.parametrize("name", ["kimi-vl-a3b", "phi-3.5-vision", "deepseek-ocr"])
def test_the_bound_of_a_class_not_followed_has_room_for_all_logits(name):
    """Code that comes with a checkpoint may compute all logits and copy them to 32 bit; the high bound covers that."""
    model = load_model(name, None, "hf")
    found = engine().budget(model, Workload(prompt_tokens=4000), BIG, TransformersSettings()).devices[0].items
    item = next(item for item in found if item.component == "compute")
    assert item.high_bytes >= 4000 * model.language.n_vocab * (2 + 4)


def test_scores_with_relative_positions_are_in_the_bound():
    """A 1024 x 1024 view is 4096 patches: scores of 12 heads and as many relative positions, 800 MiB in 16 bit."""
    workload = Workload(images=(ImageSize(width=1024, height=1024),), prompt_tokens=16)
    model = load_model("deepseek-ocr", None, "hf")
    found = engine().budget(model, workload, BIG, TransformersSettings()).devices[0].items
    assert next(item for item in found if item.component == "compute").inputs["vision_peak"] > 2 * 12 * 4096**2 * 2


def test_settings_are_strict():
    """Unknown words and values of another type are refused at the edge; every documented word is taken."""
    taken = read_record(TransformersSettings, {"dtype": "fp16", "load_in": "nf4", "padded": True})
    assert taken.load_in == "nf4"
    for wrong in ({"dtype": "float16"}, {"tensor_parallel": 2}, {"padded": "yes"}, {"max_memory": {"0": 3}}):
        with pytest.raises(UsageError):
            read_record(TransformersSettings, wrong)


def test_every_quantity_in_the_data_exists():
    """The moments name quantities that the code has, and every quantity is named by some moment."""
    used = set()

    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in {"x", "f32", "i64", "i32", "bool", "softmax", "kept"}:
                    used.update(inner)
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    data = load_data("engines/transformers/moments.yaml")
    walk(data)
    assert used <= set(QUANTITIES)
    assert set(QUANTITIES) - used == set()
    assert forms_of(data).classes


CHOICES = list(product(["bf16", "fp32"], [None, "int8", "nf4", "nf4_double"], ["auto", "single", "cpu"]))


@pytest.mark.parametrize(("dtype", "load_in", "device_map"), CHOICES)
@pytest.mark.parametrize("images", [(), (ImageSize(width=640, height=480),)])
@pytest.mark.parametrize("logits", ["last", "all"])
def test_program_is_python(dtype, load_in, device_map, images, logits):
    """The program compiles for every choice and has the words of the choice in its call."""
    chosen = TransformersSettings(dtype=dtype, load_in=load_in, device_map=device_map, logits=logits)
    workload = Workload(images=images, batch=2)
    found = engine().emit(load_model("qwen2.5-vl-7b", None, "hf"), workload, BIG, chosen)
    calls = [node for node in ast.walk(ast.parse(found.config)) if isinstance(node, ast.Call)]
    loaders = [call for call in calls if ast.unparse(call.func).endswith(".from_pretrained")]
    loading = next(call for call in loaders if ast.unparse(call.func).startswith("AutoModelFor"))
    words = {keyword.arg for keyword in loading.keywords}
    assert {"dtype", "attn_implementation", "device_map"} <= words
    assert ("quantization_config" in words) == (load_in is not None)
    assert ("AutoModelForImageTextToText" in found.config) == bool(images)


GOLDEN = """# generate.py
import sys

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

MODEL = 'Qwen/Qwen2.5-VL-7B-Instruct'
reader = AutoProcessor.from_pretrained(MODEL, max_pixels=1003520)
model = AutoModelForImageTextToText.from_pretrained(
    MODEL,
    dtype=torch.bfloat16,
    attn_implementation="sdpa",
    device_map="auto",
    max_memory={0: '10GiB', 'cpu': '30GiB'},
    quantization_config=BitsAndBytesConfig(load_in_8bit=True),
).eval()

images = [Image.open(path).convert("RGB") for path in sys.argv[1:]]
content = [{"type": "image", "image": image} for image in images]
content.append({"type": "text", "text": "What do these pictures show?"})
messages = [[{"role": "user", "content": content}]] * 1
inputs = reader.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True,
    return_tensors="pt", padding=True,
).to(model.device, torch.bfloat16)
with torch.inference_mode():
    output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(reader.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@pytest.mark.parametrize("images", [(), (ImageSize(width=640, height=480),)])
def test_parts_with_eager_attention_only_are_named_in_the_program(images):
    """A tower that would refuse the chosen attention at load gets its own word; eager needs none, nor do others."""
    workload = Workload(images=images)

    def program(name, attn):
        settings = TransformersSettings(attn_implementation=attn)
        return engine().emit(load_model(name, None, "hf"), workload, BIG, settings).config

    assert 'attn_implementation={"": "sdpa", "audio_config": "eager"}' in program("gemma-4-e2b", "sdpa")
    assert 'attn_implementation="eager"' in program("gemma-4-e2b", "eager")
    assert 'attn_implementation="sdpa"' in program("gemma-4-26b-a4b", "sdpa")


def test_a_tower_whose_weights_are_not_told_apart_is_planned():
    """Images are encoded although no weights are counted for the tower: its peak is part of the figure."""
    workload = Workload(images=(ImageSize(width=1024, height=768),), prompt_tokens=16)
    model = load_model("phi-4-multimodal", None, "hf")
    found = engine().budget(model, workload, BIG, TransformersSettings()).devices[0].items
    assert next(item for item in found if item.component == "compute").inputs["vision_peak"]


def test_logits_of_all_positions_where_the_class_knows_no_other():
    """A class that ignores which logits are asked for is planned with all of them: 1000 x 248094 x 2 bytes."""
    model = load_model("minicpm-v-4.6", None, "hf")
    item = next(
        item
        for item in engine().budget(model, Workload(prompt_tokens=1000), BIG, TransformersSettings()).devices[0].items
        if item.component == "compute"
    )
    assert item.inputs["logits"] == 1000 * 248094 * 2


def test_program_whole():
    """One program as a whole."""
    chosen = TransformersSettings(
        load_in="int8", max_memory={"0": "10GiB", "cpu": "30GiB"}, processor={"max_pixels": 1003520}
    )
    workload = Workload(images=(ImageSize(width=640, height=480),), answer_tokens=64)
    found = engine().emit(load_model("qwen2.5-vl-7b", None, "hf"), workload, BIG, chosen)
    assert found.config == GOLDEN
    assert found.command == "pip install transformers accelerate pillow bitsandbytes && python generate.py image0.jpg"
