"""Models as values for tests of the serving engines, built from published hyper-parameters."""

from pathlib import Path

from planner.machine import Gpu, Host, Machine
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    ImageRule,
    Language,
    Layer,
    Model,
    MoeFfn,
    Parameters,
    Vision,
)

GIB = 1 << 30
PROFILES = Path(__file__).parents[2] / "profiles"


def dense(
    name,
    family,
    arch,
    *,
    layers,
    embd,
    ff,
    heads,
    kv,
    dim=128,
    vocab,
    context,
    tied=False,
    bias=False,
    norm="none",
    vision=None,
    parameters=None,
    facts=None,
    windows=None,
    post_norms=False,
):
    """A dense decoder; ``windows`` is a function from the layer's index to its window or None."""
    stack = tuple(
        Layer(
            mixer=Attention(
                n_heads=heads,
                n_kv_heads=kv,
                key_dim=dim,
                value_dim=dim,
                qkv_bias=bias,
                qk_norm=norm,
                window_tokens=windows(i) if windows else None,
            ),
            ffn=DenseFfn(n_ff=ff),
            post_norms=post_norms,
        )
        for i in range(layers)
    )
    language = Language(
        architecture=arch,
        n_embd=embd,
        n_vocab=vocab,
        n_context_train=context,
        layers=stack,
        tied_embeddings=tied,
        facts=facts or {},
    )
    return Model(name=name, family=family, language=language, vision=vision, parameters=parameters)


def mrope():
    """mrope, from its published hyper-parameters."""
    return {"qwen2vl.rope.dimension_sections": (16, 24, 24)}


def qwen25_vision(width):
    """qwen25 vision, from its published hyper-parameters."""
    rule = ImageRule(
        rule="smart_resize", parameters={"patch": 14, "merge": 2, "min_pixels": 3136, "max_pixels": 12845056}
    )
    return Vision(
        tower="qwen2.5vl",
        projector="qwen2.5vl_merger",
        n_layers=32,
        n_embd=1280,
        n_ff=3420 if width < 5000 else 3456,
        n_heads=16,
        patch_size=14,
        image_size=0,
        facts={"gated_ffn": True, "temporal_patch_size": 2},
        rules={"processor": rule},
    )


def llama31_8b():
    """llama31 8b, from its published hyper-parameters."""
    return dense(
        "llama-3.1-8b", "llama", "llama", layers=32, embd=4096, ff=14336, heads=32, kv=8, vocab=128256, context=131072
    )


def llama3_8b():
    """llama3 8b, from its published hyper-parameters."""
    return dense(
        "llama-3-8b", "llama", "llama", layers=32, embd=4096, ff=14336, heads=32, kv=8, vocab=128256, context=8192
    )


def qwen25vl_7b():
    """qwen25vl 7b, from its published hyper-parameters."""
    return dense(
        "qwen2.5-vl-7b",
        "qwen2.5-vl",
        "qwen2vl",
        layers=28,
        embd=3584,
        ff=18944,
        heads=28,
        kv=4,
        vocab=152064,
        context=128000,
        bias=True,
        vision=qwen25_vision(3584),
        facts=mrope(),
        parameters=Parameters(total=8292166656, language=7615616512, vision=631975680, projector=44574464),
    )


def qwen25vl_32b():
    """qwen25vl 32b, from its published hyper-parameters."""
    return dense(
        "qwen2.5-vl-32b",
        "qwen2.5-vl",
        "qwen2vl",
        layers=64,
        embd=5120,
        ff=27648,
        heads=40,
        kv=8,
        vocab=152064,
        context=128000,
        bias=True,
        vision=qwen25_vision(5120),
        facts=mrope(),
        parameters=Parameters(total=33452718336, language=32763876352, vision=636401920, projector=52440064),
    )


def qwen3_32b():
    """qwen3 32b, from its published hyper-parameters."""
    return dense(
        "qwen3-32b",
        "qwen3",
        "qwen3",
        layers=64,
        embd=5120,
        ff=25600,
        heads=64,
        kv=8,
        vocab=151936,
        context=40960,
        norm="head",
    )


def qwen3_8b():
    """qwen3 8b, from its published hyper-parameters."""
    return dense(
        "qwen3-8b",
        "qwen3",
        "qwen3",
        layers=36,
        embd=4096,
        ff=12288,
        heads=32,
        kv=8,
        vocab=151936,
        context=40960,
        norm="head",
    )


def qwen3_235b():
    """qwen3 235b, from its published hyper-parameters."""
    layer = Layer(
        mixer=Attention(n_heads=64, n_kv_heads=4, key_dim=128, value_dim=128, qk_norm="head"),
        ffn=MoeFfn(n_experts=128, n_experts_used=8, n_ff_expert=1536),
    )
    language = Language(
        architecture="qwen3moe", n_embd=4096, n_vocab=151936, n_context_train=40960, layers=(layer,) * 94
    )
    return Model(name="qwen3-235b-a22b", family="qwen3-moe", language=language)


def gemma3_27b():
    """gemma3 27b, from its published hyper-parameters."""
    vision = Vision(
        tower="siglip",
        projector="gemma3",
        n_layers=27,
        n_embd=1152,
        n_ff=4304,
        n_heads=16,
        patch_size=14,
        image_size=896,
        rules={"processor": ImageRule(rule="fixed", parameters={"size": 896, "tokens": 256, "patch": 14})},
    )
    return dense(
        "gemma-3-27b",
        "gemma-3",
        "gemma3",
        layers=62,
        embd=5376,
        ff=21504,
        heads=32,
        kv=16,
        vocab=262208,
        context=131072,
        tied=True,
        norm="head",
        post_norms=True,
        windows=lambda i: None if (i + 1) % 6 == 0 else 1024,
        vision=vision,
        parameters=Parameters(total=27432406640, language=27009346304, vision=416866032, projector=6194304),
    )


def mllama_11b():
    """Mllama 11b, from its published hyper-parameters."""
    full = Layer(mixer=Attention(n_heads=32, n_kv_heads=8, key_dim=128, value_dim=128), ffn=DenseFfn(n_ff=14336))
    cross = Layer(mixer=CrossAttention(n_heads=32, n_kv_heads=8, head_dim=128), ffn=DenseFfn(n_ff=14336))
    layers = tuple(cross if i in {3, 8, 13, 18, 23, 28, 33, 38} else full for i in range(40))
    language = Language(architecture="mllama", n_embd=4096, n_vocab=128256, n_context_train=131072, layers=layers)
    vision = Vision(
        tower="mllama",
        projector="mllama",
        n_layers=40,
        n_embd=1280,
        n_ff=5120,
        n_heads=16,
        patch_size=14,
        image_size=560,
    )
    return Model(
        name="llama-3.2-11b-vision",
        family="llama-3.2-vision",
        language=language,
        vision=vision,
        parameters=Parameters(total=10670220835, language=9775192080, vision=863567379, projector=31461376),
        architecture_class="MllamaForConditionalGeneration",
    )


def minicpm25():
    """minicpm25, from its published hyper-parameters."""
    vision = Vision(
        tower="siglip_navit",
        projector="resampler",
        n_layers=27,
        n_embd=1152,
        n_ff=4304,
        n_heads=16,
        patch_size=14,
        image_size=980,
    )
    return dense(
        "minicpm-llama3-v-2.5",
        "minicpm-llama3-v-2.5",
        "llama",
        layers=32,
        embd=4096,
        ff=14336,
        heads=32,
        kv=8,
        vocab=128256,
        context=8192,
        vision=vision,
        parameters=Parameters(total=8537092336, language=8030261248, vision=412442352, projector=94388736),
    )


def minicpm26():
    """minicpm26, from its published hyper-parameters."""
    vision = Vision(
        tower="siglip_navit",
        projector="resampler",
        n_layers=27,
        n_embd=1152,
        n_ff=4304,
        n_heads=16,
        patch_size=14,
        image_size=980,
    )
    return dense(
        "minicpm-v-2.6",
        "minicpm-v-2.6",
        "qwen2",
        layers=28,
        embd=3584,
        ff=18944,
        heads=28,
        kv=4,
        vocab=151666,
        context=32768,
        bias=True,
        vision=vision,
        parameters=Parameters(total=8099175152, language=7612756480, vision=412442352, projector=73976320),
    )


def box(*gib, name="GPU", ram=64):
    """A described machine with GPUs of so many GiB, all of it free."""
    gpus = tuple(Gpu(name=name, total_bytes=int(g * GIB), free_bytes=int(g * GIB)) for g in gib)
    return Machine(gpus=gpus, host=Host(total_bytes=ram * GIB, free_bytes=ram * GIB, n_cores=8), simulated=True)


def internvl15_26b():
    """InternVL-Chat-V1.5: InternLM2-20B behind a tower of six billion."""
    vision = Vision(
        tower="internvit",
        projector="internvl",
        n_layers=45,
        n_embd=3200,
        n_ff=12800,
        n_heads=25,
        patch_size=14,
        image_size=448,
    )
    return dense(
        "internvl-1.5-26b",
        "internvl-1.5",
        "internlm2",
        layers=48,
        embd=6144,
        ff=16384,
        heads=48,
        kv=8,
        vocab=92553,
        context=32768,
        vision=vision,
        parameters=Parameters(total=25514186112, language=19861149696, vision=5536876800, projector=116159616),
    )
