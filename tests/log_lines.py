"""Published figures written back as the lines they were read from, in an engine's spelling of one time."""

from __future__ import annotations

SPELLINGS = {
    "2024": (
        "llm_load_tensors: {0:>10} buffer size = {1:8.2f} MiB",
        "llama_kv_cache_init",
        "llama_new_context_with_model",
    ),
    "early 2025": ("load_tensors: {0:>12} model buffer size = {1:8.2f} MiB", "init", "llama_init_from_model"),
    "late 2025": ("load_tensors: {0:>12} model buffer size = {1:8.2f} MiB", "llama_kv_cache_unified", "llama_context"),
    "2026": ("load_tensors: {0:>12} model buffer size = {1:8.2f} MiB", "llama_kv_cache", "sched_reserve"),
}
_SIZES = {"MiB": 1.0, "GiB": 1024.0}


def buffers_of(case):
    """Yield (kind, buffer name, MiB) of each buffer that a field case carries."""
    for key in ("model_buffer", "kv_buffer", "compute_buffer"):
        for name, value in case["measured"].get(key, {}).items():
            buffer, unit = name.rsplit("_", 1)
            yield key.removesuffix("_buffer"), buffer.removesuffix("_second"), value * _SIZES[unit]


def llama_cpp_log(case, spelling):
    """Return the buffer and settings lines of a field case."""
    load, cache, graph = SPELLINGS[spelling]
    config = case.get("config", {})
    lines = [
        f"llama_context: {name} = {config[key]}"
        for name, key in (("n_ctx", "ctx"), ("n_ubatch", "ubatch"))
        if key in config
    ]
    if "ngl" in config and "/" in str(config["ngl"]):
        lines.append(f"load_tensors: offloaded {config['ngl']} layers to GPU")
    for kind, name, mib in buffers_of(case):
        if kind == "model":
            lines.append(load.format(name, mib))
        elif kind == "kv":
            lines.append(f"{cache}: {name:>10} KV buffer size = {mib:8.2f} MiB")
        else:
            lines.append(f"{graph}: {name:>10} compute buffer size = {mib:8.2f} MiB")
    return "\n".join(lines)


def breakdown_log(rows):
    """Return the engine's table of memory for the devices of a field case."""
    words = "total   free    self   model   context   compute    unaccounted"
    lines = [f"llama_memory_breakdown_print: | memory breakdown [MiB] | {words} |"]
    for name, row in rows.items():
        parts = f"{row['model_MiB']} + {row.get('context_MiB', 0):7} + {row.get('compute_MiB', 0):7}"
        if name == "Host":
            lines.append(f"llama_memory_breakdown_print: |   - Host |    {row['self_MiB']} = {parts}                |")
            continue
        rest = f" + {row['unaccounted_MiB']:11}" if "unaccounted_MiB" in row else ""
        sizes = f"{row['total_MiB']} = {row['free_MiB']:5} + ({row['self_MiB']} = {parts})"
        lines.append(f"llama_memory_breakdown_print: |   - {name} (some GPU) | {sizes}{rest} |")
    return "\n".join(lines)


def vllm_log(measured):
    """Return the profile lines of a field case; negative pools are printed as such."""
    words = {
        "model_weights_GiB": "model weights take {:.2f}GiB",
        "non_torch_memory_GiB": "non_torch_memory takes {:.2f}GiB",
        "pytorch_activation_peak_GiB": "PyTorch activation peak memory takes {:.2f}GiB",
        "kv_cache_GiB": "the rest of the memory reserved for KV Cache is {:.2f}GiB.",
    }
    said = [word.format(measured[key]) for key, word in words.items() if key in measured]
    lines = ["INFO 03-25 10:00:22 [worker.py:267] " + "; ".join(said)]
    if "load_weights_GB" in measured:
        lines.append(
            f"INFO 03-25 [model_runner.py:1146] Loading model weights took {measured['load_weights_GB']:.4f} GB"
        )
    if "kv_tokens" in measured:
        lines.append(f"INFO 03-25 10:00:23 [kv_cache_utils.py:634] GPU KV cache size: {measured['kv_tokens']:,} tokens")
    return "\n".join(lines)


def ollama_estimate_log(measured):
    """Return the scheduler's line of a field case, for the terms that it carries."""
    words = {
        "memory.required.full": "memory_required_full",
        "memory.required.kv": "memory_required_kv",
        "memory.weights.total": "weights_total",
        "memory.graph.full": "graph_full",
        "projector.weights": "projector_weights",
        "projector.graph": "projector_graph",
    }
    pairs = [
        f'{word}="{measured[f"{key}_{unit}"]:.1f} {unit}"'
        for word, key in words.items()
        for unit in ("MiB", "GiB")
        if f"{key}_{unit}" in measured
    ]
    line = "time=2025-05-24T09:13:44.018Z level=INFO source=server.go:135 msg=offload library=cuda"
    return " ".join([line, *pairs])
