"""The tensor inventory, the quantiser's recipe and the profiles against true file headers."""

from __future__ import annotations

import time
from dataclasses import replace
from math import prod

import pytest
from gguf_headers import dry_runs, headers, language_headers, projector_headers, read_bytes
from sources.test_gguf_reader import header, number, tensor, word

from planner.catalog import load_model
from planner.errors import UsageError
from planner.quantization import FORMATS, tensor_bytes
from planner.quantization.file_types import DEFAULT_FORMATS, FILE_TYPE_NUMBERS, known_file_type
from planner.recipe import allows_quantization, quantized_tensors
from planner.sources.gguf import language_from_gguf, vision_from_gguf
from planner.tensors import language_tensors, vision_tensors
from planner.units import align


def stored(tensors) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and format by name, refusing a name that stands twice."""
    found = {t.name: (t.shape, t.format) for t in tensors}
    assert len(found) == len(tuple(tensors))
    return found


def n_bytes(tensors) -> int:
    """Return the bytes of all tensors."""
    return sum(tensor_bytes(t.format, t.shape) for t in tensors)


@pytest.mark.parametrize("name", language_headers())
def test_a_profile_alone_gives_the_tensors_of_the_true_file(name):
    """Name, shape, format and bytes of every tensor are those of the file, from the catalogue and the recipe alone."""
    model, kind, _ = name.rsplit(".", 2)
    true = language_from_gguf(read_bytes(headers()[name]))
    planned = load_model(model, kind)
    assert stored(planned.language.tensors) == stored(true.tensors)
    assert n_bytes(planned.language.tensors) == n_bytes(true.tensors)
    assert planned.quantization == kind


@pytest.mark.parametrize("name", [name for name in language_headers() if name.endswith(".F16.gguf")])
def test_a_profile_alone_gives_the_language_model_of_the_true_file(name):
    """Layers by kind and every width that the tables of engines rest on are what the header says."""
    true = language_from_gguf(read_bytes(headers()[name]))
    planned = load_model(name.rsplit(".", 2)[0], "F16").language
    assert "unknown" not in true.facts
    for field in (
        "architecture",
        "n_embd",
        "n_vocab",
        "n_context_train",
        "layers",
        "tied_embeddings",
        "n_mtp_layers",
        "n_deepstack_layers",
        "n_embd_per_layer",
        "rope_factors",
    ):
        assert getattr(planned, field) == getattr(true, field), field


@pytest.mark.parametrize("name", projector_headers())
def test_a_profile_alone_gives_the_projector_file(name):
    """Name, shape and format of every tensor of the projector file, and the tower's sizes, are those of the file."""
    true = vision_from_gguf(read_bytes(headers()[name]))
    planned = load_model(name.removeprefix("mmproj-").removesuffix(".gguf"), "F16").vision
    assert stored(planned.tensors) == stored(true.tensors)
    for field in ("tower", "projector", "n_layers", "n_embd", "n_ff", "n_heads", "patch_size", "image_size"):
        assert getattr(planned, field) == getattr(true, field), field


@pytest.mark.parametrize("name", dry_runs())
def test_the_recipe_is_the_quantisers_own(name):
    """On shapes it was never shown, every tensor of 17 file types gets the format that llama-quantize announces."""
    file, answers = dry_runs()[name]
    language = language_from_gguf(file)
    entries = [(tensor.name, tensor.shape) for tensor in file.tensors]
    for kind, wanted in answers.items():
        found = [tensor.format for tensor in quantized_tensors(language, kind, entries)]
        assert found == wanted, kind


@pytest.mark.parametrize("name", dry_runs())
def test_the_inventory_of_shapes_never_shown(name):
    """Synthetic models of every layer kind have exactly the tensors that the inventory lists."""
    file, _ = dry_runs()[name]
    language = language_from_gguf(file)
    assert "unknown" not in language.facts
    assert dict(language_tensors(language)) == {tensor.name: tensor.shape for tensor in file.tensors}


def test_unquantised_file_types():
    """F16, BF16 and F32 differ in the matrices only: norms, biases and routers are f32 in all."""
    for kind, plain in (("F16", "f16"), ("BF16", "bf16"), ("F32", "f32")):
        tensors = load_model("qwen3-vl-30b-a3b", kind).language.tensors
        assert {tensor.format for tensor in tensors} == {plain, "f32"}
        assert all(t.format == plain for t in tensors if allows_quantization(t.name, t.shape))
        assert all(t.format == "f32" for t in tensors if len(t.shape) == 1 or "ffn_gate_inp" in t.name)


def test_fewer_bits_are_fewer_bytes():
    """Along the file types from F32 to Q2_K no model grows, save where rows fit no larger block."""
    order = ["F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"]
    for name in ("qwen2.5-vl-7b", "gemma-3-12b", "llama-4-scout", "qwen3.5-9b"):
        sizes = [n_bytes(load_model(name, kind).language.tensors) for kind in order]
        assert sizes == sorted(sizes, reverse=True)


def test_file_types_have_known_words():
    """Every recipe's word is a file type of the format, in any case; others are refused with the list."""
    assert set(DEFAULT_FORMATS) <= set(FILE_TYPE_NUMBERS.values())
    assert set(DEFAULT_FORMATS.values()) <= set(FORMATS)
    assert known_file_type("q4_k_m") == known_file_type("Q4-K-M") == known_file_type("Q4_K") == "Q4_K_M"
    assert known_file_type("fp16") == "F16"
    assert load_model("gpt-oss-20b").quantization == known_file_type("mxfp4") == "MXFP4_MOE"
    with pytest.raises(UsageError, match="Q4_K_M"):
        known_file_type("Q4_K_XXL")


def test_every_row_is_a_whole_number_of_blocks():
    """No recipe gives a tensor a format whose blocks do not divide its rows, which the engine would refuse to load."""
    for name in ("internvl3-1b", "deepseek-v2-lite", "gemma-4-26b-a4b", "gpt-oss-20b"):
        for kind in DEFAULT_FORMATS:
            for stored_tensor in load_model(name, kind).language.tensors:
                assert stored_tensor.shape[0] % FORMATS[stored_tensor.format].block_elements == 0


def test_listing_is_quick():
    """The tensors of a large model are listed in about a millisecond and given formats in a few."""
    language = load_model("qwen3-vl-235b-a22b", "Q4_K_M").language
    language_tensors(language)
    listing, formats = [], []
    for _ in range(5):
        started = time.process_time()
        entries = language_tensors(language)
        listing.append(time.process_time() - started)
        started = time.process_time()
        quantized_tensors(language, "Q4_K_M", entries)
        formats.append(time.process_time() - started)
    assert min(listing) < 0.003
    assert min(formats) < 0.03


def test_a_tower_of_unknown_kind_has_no_tensors():
    """Where no file of a kind is known, nothing is invented."""
    model = load_model("phi-3.5-vision", "Q4_K_M")
    assert vision_tensors(model.vision, model.language.n_embd) == ()
    assert model.projector_file_bytes is None


def test_a_file_that_stores_more_than_its_kind_is_not_trusted():
    """One strange tensor in a layer, and the layers are unknown; the tensors stay exact."""
    file = read_bytes(headers()["llama-3.1-8b.Q4_0.gguf"])
    odd = replace(file.tensors[0], name="blk.3.odd.weight", shape=(8,), format="f32", n_bytes=32)
    strange = replace(file, tensors=(*file.tensors, odd))
    language = language_from_gguf(strange)
    assert language.layers == ()
    assert "odd" in language.facts["unknown"]
    assert len(language.tensors) == len(file.tensors) + 1


def test_an_unknown_architecture_keeps_its_tensors():
    """An architecture that no rule describes is said to be unknown; its tensors still count."""
    file = read_bytes(headers()["qwq-32b.Q8_0.gguf"])
    renamed = {key.replace("qwen2.", "brandnew."): value for key, value in file.metadata.items()}
    language = language_from_gguf(replace(file, metadata={**renamed, "general.architecture": "brandnew"}))
    assert language.layers == ()
    assert "brandnew" in language.facts["unknown"]
    assert sum(prod(tensor.shape) for tensor in language.tensors) == 32_763_876_352


def test_cross_attention_layers_are_read_from_their_tensors():
    """A header made from a profile with cross-attention reads back as the same layers, its odd embedding included."""
    planned = load_model("llama3.2-vision", "Q4_K_M").language
    keys = [word("general.architecture", "mllama")]
    sizes = {
        "block_count": 40,
        "context_length": 131072,
        "embedding_length": 4096,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
    }
    keys += [number(f"mllama.{key}", value) for key, value in sizes.items()]
    entries, offset = [], 0
    for stored_tensor in planned.tensors:
        kind = FORMATS[stored_tensor.format].ggml_id
        entries.append(tensor(stored_tensor.name, stored_tensor.shape, kind, offset))
        offset += align(tensor_bytes(stored_tensor.format, stored_tensor.shape), 32)
    read = language_from_gguf(read_bytes(header(keys, entries)))
    assert read.layers == planned.layers
    assert read.facts["embedding_rows"] == planned.facts["embedding_rows"] == read.n_vocab + 8
    assert read.tensors == planned.tensors


@pytest.mark.parametrize("used", [0, 129, 1 << 31])
def test_impossible_experts_make_layers_unknown(used):
    """A file that uses no expert, or more than it has, is not simulated."""
    file = read_bytes(headers()["qwen3-vl-30b-a3b.Q4_0.gguf"])
    changed = replace(file, metadata={**file.metadata, "qwen3vlmoe.expert_used_count": used})
    assert len(language_from_gguf(file).layers) == 48
    assert language_from_gguf(changed).layers == ()
