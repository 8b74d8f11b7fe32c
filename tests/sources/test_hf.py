"""Folders of Hugging Face files: the same model as our profile, exact weights, and honesty about what is not known."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from sources.checkpoints import safetensors_bytes, safetensors_header, write_sparse
from sources.configurations import CONFIGURATIONS

from planner.catalog.models import list_profiles, load_model
from planner.engines.rank_weights import is_counted, rank_weights
from planner.errors import SourceError, UsageError
from planner.model import Attention, LatentAttention, MoeFfn, Vision
from planner.sources.hf import LocalFolder, model_from_folder
from planner.sources.hf.words import words
from planner.sources.image_rules import with_mtmd_rule
from planner.sources.opening import open_model
from planner.vision import image_tokens
from planner.workload import ImageSize

SIZES = ((224, 224), (640, 480), (1024, 768), (1920, 1080), (3200, 2400), (800, 2400), (4096, 300))
# LLaVA's GGUF files keep the vocabulary of the first publisher, 64 rows less than the folder's
GGUF_DIFFERS = {name for name in CONFIGURATIONS if name.startswith("llava-1.")}


def folder(path, config, preprocessor=None, **files):
    """Write a model folder and return its path."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if preprocessor:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    for name, data in files.items():
        (path / name.replace("__", ".")).write_bytes(data)
    return path


def read(path):
    """Return the model in the folder ``path``."""
    return with_mtmd_rule(model_from_folder(LocalFolder(path=path)))


def tokens(vision, size, engine):
    """Return what an image becomes, or the fact that the processor refuses it."""
    try:
        found = image_tokens(vision, ImageSize(width=size[0], height=size[1]), engine=engine)
    except UsageError:
        return "refused"
    return (found.tokens, found.extra_tokens, found.encoder_sequences, found.resized_to)


def test_a_model_type_of_the_first_releases_is_the_same_family(tmp_path):
    """LFM2-VL's first files write their type with a hyphen; tower and tokens are those of the later ones."""
    config, preprocessor = CONFIGURATIONS["lfm2-vl-450m"]
    later = read(folder(tmp_path / "later", config, preprocessor))
    first = read(folder(tmp_path / "first", {**config, "model_type": "lfm2-vl"}, preprocessor))
    assert first.vision == later.vision
    assert first.language == later.language


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_folder_equals_profile(tmp_path, name):
    """Layers, widths, tower and image tokens of a folder are those of our profile of the same model."""
    ours = read(folder(tmp_path / name, *CONFIGURATIONS[name]))
    theirs = load_model(name, None, "hf")
    for field in fields(ours.language):
        if field.name not in {"facts", "tensors"}:
            assert getattr(ours.language, field.name) == getattr(theirs.language, field.name), field.name
    assert ours.family == theirs.family
    assert (ours.vision is None) == (theirs.vision is None)
    if ours.vision is None or theirs.vision is None:
        return
    for field in fields(Vision):
        if field.name not in {"rules", "tensors"}:
            assert getattr(ours.vision, field.name) == getattr(theirs.vision, field.name), field.name
    assert set(ours.vision.rules) == set(theirs.vision.rules)
    for size in SIZES:
        for engine in ("transformers", "llama.cpp") if "mtmd" in ours.vision.rules else ("transformers",):
            if "processor" in ours.vision.rules or engine == "llama.cpp":
                assert tokens(ours.vision, size, engine) == tokens(theirs.vision, size, engine)


@pytest.mark.parametrize("name", sorted(set(CONFIGURATIONS) - GGUF_DIFFERS))
def test_folder_and_profile_give_the_same_gguf(tmp_path, name):
    """The tensors that a converted file would have are the same from the folder and from the profile, to the byte."""
    path = folder(tmp_path / name, *CONFIGURATIONS[name])
    for quantization in ("F16", "Q4_K_M"):
        ours = open_model(str(path), engine="llama.cpp", quantization=quantization)
        theirs = load_model(name, quantization, "gguf")
        assert ours.language.tensors == theirs.language.tensors
        assert ours.file_bytes == theirs.file_bytes
        assert ours.projector_file_bytes == theirs.projector_file_bytes


# what mapping to these towers leaves out or adds: CLIP's last block, query projections of the resampler
SERVED_DIFFERS = {"clip": (-0.04, 0.0), "siglip": (-0.04, 0.04)}


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_folder_and_profile_give_the_same_weights_to_an_engine(tmp_path, name):
    """A configuration alone gives a rank's weights: the language model's as the profile, the tower's by its inventory.

    A tower of no known inventory is taken by structure, with a high bound that holds the published count.
    """
    ours, theirs = read(folder(tmp_path / name, *CONFIGURATIONS[name])), load_model(name, None, "hf")
    found = [
        rank_weights(
            model, stage=0, n_stages=1, n_ranks=1, format_name="bf16", dtype_bytes=2, vision=model.vision is not None
        )
        for model in (ours, replace(theirs, parameters=None), theirs)
    ]
    assert found[0].language_bytes == found[1].language_bytes
    assert found[0].rope_bytes == found[1].rope_bytes
    published, vision = found[2], ours.vision
    if vision is None:
        return
    assert found[0].vision_high_bytes >= published.vision_bytes * 0.96
    if is_counted(ours):
        low, high = SERVED_DIFFERS.get(vision.tower, (0.0, 0.0))
        assert low - 1e-3 <= found[0].vision_bytes / published.vision_bytes - 1 <= high + 1e-3


def test_every_family_of_the_catalogue_can_be_read():
    """Each family with a profile has a model type: a folder of it is understood."""
    known = {entry.family for entries in words().models.values() for entry in entries}
    families = {profile.family for profile in list_profiles()}
    assert families - known == set()


def test_every_entry_of_the_data_is_used():
    """Each language entry is the text part of some model type, so that none is a leftover."""
    data = words()
    named = {entry.language for entries in data.models.values() for entry in entries if entry.language}
    nested = {name for name in data.language if name.endswith(("_text", "_text_model")) or name in data.models}
    nested |= {"mistral", "granite", "qwen2_vl_text", "lfm2"}
    assert set(data.language) - named - nested == set()


def llama_names(n_layers=2, n_embd=64, n_ff=128, n_kv=32, prefix="model."):
    """Return names and shapes of a plain decoder as transformers stores them."""
    found = {
        f"{prefix}embed_tokens.weight": (96, n_embd),
        "lm_head.weight": (96, n_embd),
        f"{prefix}norm.weight": (n_embd,),
    }
    for i in range(n_layers):
        p = f"{prefix}layers.{i}."
        found |= {
            p + "input_layernorm.weight": (n_embd,),
            p + "post_attention_layernorm.weight": (n_embd,),
            p + "self_attn.q_proj.weight": (n_embd, n_embd),
            p + "self_attn.k_proj.weight": (n_kv, n_embd),
            p + "self_attn.v_proj.weight": (n_kv, n_embd),
            p + "self_attn.o_proj.weight": (n_embd, n_embd),
            p + "mlp.gate_proj.weight": (n_ff, n_embd),
            p + "mlp.up_proj.weight": (n_ff, n_embd),
            p + "mlp.down_proj.weight": (n_embd, n_ff),
        }
    return found


TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
}


def qwen_names():
    """Return names and shapes of the 3B model of Qwen2.5-VL, tower and merger included."""
    found = {"model.embed_tokens.weight": (151936, 2048), "model.norm.weight": (2048,)}
    for i in range(36):
        p = f"model.layers.{i}."
        found |= {
            p + "input_layernorm.weight": (2048,),
            p + "post_attention_layernorm.weight": (2048,),
            p + "self_attn.q_proj.weight": (2048, 2048),
            p + "self_attn.q_proj.bias": (2048,),
            p + "self_attn.k_proj.weight": (256, 2048),
            p + "self_attn.k_proj.bias": (256,),
            p + "self_attn.v_proj.weight": (256, 2048),
            p + "self_attn.v_proj.bias": (256,),
            p + "self_attn.o_proj.weight": (2048, 2048),
            p + "mlp.gate_proj.weight": (11008, 2048),
            p + "mlp.up_proj.weight": (11008, 2048),
            p + "mlp.down_proj.weight": (2048, 11008),
        }
    found["visual.patch_embed.proj.weight"] = (1280, 3, 2, 14, 14)
    for i in range(32):
        p = f"visual.blocks.{i}."
        found |= {
            p + "norm1.weight": (1280,),
            p + "norm2.weight": (1280,),
            p + "attn.qkv.weight": (3840, 1280),
            p + "attn.qkv.bias": (3840,),
            p + "attn.proj.weight": (1280, 1280),
            p + "attn.proj.bias": (1280,),
        }
        for name, shape in (("gate_proj", (3420, 1280)), ("up_proj", (3420, 1280)), ("down_proj", (1280, 3420))):
            found |= {f"{p}mlp.{name}.weight": shape, f"{p}mlp.{name}.bias": shape[:1]}
    return found | {
        "visual.merger.ln_q.weight": (1280,),
        "visual.merger.mlp.0.weight": (5120, 5120),
        "visual.merger.mlp.0.bias": (5120,),
        "visual.merger.mlp.2.weight": (2048, 5120),
        "visual.merger.mlp.2.bias": (2048,),
    }


def test_parameters_of_a_folder_are_the_published_ones(tmp_path):
    """Counted from the headers, each part has exactly the published number of parameters, and 2 bytes each."""
    config, preprocessor = CONFIGURATIONS["qwen2.5-vl-3b"]
    path = folder(tmp_path / "m", config, preprocessor)
    header, n_bytes = safetensors_header({name: ("BF16", shape) for name, shape in qwen_names().items()})
    write_sparse(path / "model.safetensors", header, n_bytes)
    model, profile = read(path), load_model("qwen2.5-vl-3b", None, "hf")
    assert model.parameters is not None
    assert profile.parameters is not None
    assert replace(model.parameters, linear=None) == replace(profile.parameters, linear=None)
    assert profile.parameters.linear in {None, model.parameters.linear}
    assert model.stored is not None
    assert model.stored.total_bytes == 2 * 3754622976
    assert model.stored.vision_bytes == 2 * 631975680


def linears(names):
    """Return the names of the quantised matrices."""
    return [n for n in names if n.endswith("_proj.weight")]


def packed(scheme):
    """Return the tiny decoder's tensors as a scheme stores them, and its quantization_config."""
    names = llama_names()
    tensors = {n: ("BF16", s) for n, s in names.items() if not n.endswith("_proj.weight")}
    for name in linears(names):
        (out, width), stem = names[name], name.removesuffix(".weight")
        if scheme == "awq":
            tensors |= {
                f"{stem}.qweight": ("I32", (width, out // 8)),
                f"{stem}.qzeros": ("I32", (width // 32, out // 8)),
                f"{stem}.scales": ("F16", (width // 32, out)),
            }
        if scheme == "gptq":
            tensors |= {
                f"{stem}.qweight": ("I32", (width // 8, out)),
                f"{stem}.qzeros": ("I32", (width // 32, out // 8)),
                f"{stem}.scales": ("F16", (width // 32, out)),
                f"{stem}.g_idx": ("I32", (width,)),
            }
        if scheme == "fp8":
            tensors |= {name: ("F8_E4M3", (out, width)), f"{name}_scale_inv": ("F32", (1, 1))}
        if scheme == "bitsandbytes":
            tensors |= {
                name: ("U8", (out * width // 2, 1)),
                f"{name}.absmax": ("U8", (out * width // 64,)),
                f"{name}.quant_map": ("F32", (16,)),
                f"{name}.quant_state.bitsandbytes__nf4": ("U8", (90,)),
            }
        if scheme == "compressed-tensors":
            tensors |= {
                f"{stem}.weight_packed": ("I32", (out, width // 8)),
                f"{stem}.weight_scale": ("BF16", (out, width // 32)),
                f"{stem}.weight_shape": ("I64", (2,)),
            }
        if scheme == "mxfp4":
            tensors |= {f"{stem}_blocks": ("U8", (out, width // 32, 16)), f"{stem}_scales": ("U8", (out, width // 32))}
    return tensors


SCHEMES = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, "awq"),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}, "gptq"),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}, "fp8_block"),
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"},
        "nf4",
    ),
    "compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {
                "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}
            },
        },
        "w4a16",
    ),
    "mxfp4": ({"quant_method": "mxfp4"}, "mxfp4"),
}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_quantised_checkpoints(tmp_path, scheme):
    """Of a packed checkpoint the bytes are as stored, and the parameters are those before packing."""
    config, word = SCHEMES[scheme]
    data = safetensors_bytes(packed(scheme))
    path = folder(tmp_path / "m", {**TINY, "quantization_config": config}, model__safetensors=data)
    model = read(path)
    plain = sum(a * b for a, b in ((*shape, 1)[:2] for shape in llama_names().values()))
    assert model.parameters is not None
    assert model.parameters.total == plain
    assert model.quantization == word
    assert model.stored is not None
    assert model.stored.total_bytes == len(data) - 8 - int.from_bytes(data[:8], "little")
    assert model.stored.bits == (8 if scheme == "fp8" else 4)


def test_unknown_family_with_standard_keys(tmp_path):
    """A family without data is read by the standard keys, says so, and names no GGUF architecture."""
    weights = safetensors_bytes({n: ("BF16", s) for n, s in llama_names().items()})
    path = folder(tmp_path / "m", {**TINY, "model_type": "brandnew"}, model__safetensors=weights)
    model = read(path)
    assert [layer.mixer for layer in model.language.layers] == [
        Attention(n_heads=4, n_kv_heads=2, key_dim=16, value_dim=16)
    ] * 2
    assert model.language.architecture == ""
    assert any("not known" in note for note in model.notes)
    assert model.stored is not None
    assert model.stored.total_bytes == 2 * model.parameters.total


@pytest.mark.parametrize(
    "extra",
    [{"mamba_d_state": 16}, {"kv_lora_rank": 512}, {"cross_attention_layers": [1]}, {"num_attention_heads": None}],
)
def test_unknown_family_with_other_layers_stays_unknown(tmp_path, extra):
    """Where keys point to layers that no data explains, the cache is unknown, with the reason; weights are exact."""
    weights = safetensors_bytes({n: ("BF16", s) for n, s in llama_names().items()})
    path = folder(tmp_path / "m", {**TINY, "model_type": "brandnew", **extra}, model__safetensors=weights)
    model = read(path)
    assert model.language.layers == ()
    assert "brandnew" in str(model.language.facts["unknown"])
    assert model.stored is not None
    assert model.stored.total_bytes > 0


def test_unknown_tower_is_counted_and_named_so(tmp_path):
    """A vision tower of an unknown family has exact bytes, and a kind and rule that say unknown."""
    names = {"vision_tower.encoder.w": ("BF16", (8, 8)), "multi_modal_projector.w": ("BF16", (4, 8))}
    weights = safetensors_bytes({**{n: ("BF16", s) for n, s in llama_names().items()}, **names})
    path = folder(tmp_path / "m", {**TINY, "model_type": "brandnew"}, model__safetensors=weights)
    model = read(path)
    assert model.vision is not None
    assert (model.vision.tower, model.vision.rules) == ("unknown", {})
    assert model.stored is not None
    assert (model.stored.vision_bytes, model.stored.projector_bytes) == (128, 64)


def test_kinds_of_layers_are_told_apart(tmp_path):
    """Latent attention, experts after a dense layer, shared caches and double-wide blocks come out of their keys."""
    moe = read(folder(tmp_path / "a", *CONFIGURATIONS["kimi-vl-a3b"])).language
    assert isinstance(moe.layers[0].mixer, LatentAttention)
    assert not isinstance(moe.layers[0].ffn, MoeFfn)
    assert isinstance(moe.layers[1].ffn, MoeFfn)
    shared = read(folder(tmp_path / "b", *CONFIGURATIONS["gemma-4-e2b"])).language
    sources = [layer.mixer.kv_source_layer for layer in shared.layers if isinstance(layer.mixer, Attention)]
    assert sources[:15] == [None] * 15
    assert sources[15:20] == [13, 13, 13, 13, 14]


def test_index_without_shards_is_a_configuration(tmp_path):
    """A folder with the index but no shard is planned from its configuration; a half-finished download is refused."""
    index = {"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    path = folder(tmp_path / "m", TINY)
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read(path).stored is None
    (path / "x-1.safetensors").write_bytes(safetensors_bytes({"a": ("F16", (2,))}))
    with pytest.raises(SourceError, match="download is not complete"):
        read(path)


HOSTILE = {
    "no_layers": {**TINY, "num_hidden_layers": 0},
    "endless_layers": {**TINY, "num_hidden_layers": 10**12},
    "negative": {**TINY, "hidden_size": -1},
    "text": {**TINY, "num_attention_heads": "four"},
    "huge": {**TINY, "vocab_size": 10**30},
    "no_heads": {**TINY, "num_attention_heads": 0},
    "uneven_heads": {**TINY, "num_attention_heads": 4, "num_key_value_heads": 3},
    "kind": {**TINY, "layer_types": ["sliding_attention", "quantum_attention"]},
    "few_kinds": {**TINY, "layer_types": ["full_attention"]},
    "type_is_list": {**TINY, "model_type": ["llama"]},
    "nested_is_list": {"model_type": "gemma3", "text_config": [], "vision_config": {}},
    "tower": {**CONFIGURATIONS["qwen2.5-vl-3b"][0], "vision_config": {"depth": 10**9}},
    "patch": {**CONFIGURATIONS["gemma-3-4b"][0], "vision_config": {"patch_size": 0, "image_size": 896}},
    "tower_heads": {
        **CONFIGURATIONS["deepseek-ocr"][0],
        "vision_config": {"width": {"clip-l-14-224": {"image_size": 224, "patch_size": 14}, "sam_vit_b": {"heads": 0}}},
    },
    "experts": {**CONFIGURATIONS["qwen3-vl-30b-a3b"][0]["text_config"], "num_experts_per_tok": 1000},
    "shared": {
        "model_type": "gemma4",
        "text_config": {**CONFIGURATIONS["gemma-4-e2b"][0]["text_config"], "num_kv_shared_layers": 35},
        "vision_config": {},
    },
    "quantization": {**TINY, "quantization_config": "awq"},
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_odd_configurations_are_one_line(tmp_path, name):
    """A value that makes no sense is named in one line; nothing of that size is ever built."""
    with pytest.raises(SourceError) as caught:
        read(folder(tmp_path / "m", HOSTILE[name]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"n": ' + b"9" * 10_000 + b"}",
    ],
)
def test_text_that_is_no_configuration(tmp_path, text):
    """Whatever config.json holds, the answer is one line."""
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(SourceError):
        read(tmp_path)


def test_folder_without_configuration(tmp_path):
    """An empty folder is told apart from a model."""
    with pytest.raises(SourceError, match=r"neither config\.json nor"):
        read(tmp_path)
