"""Small safetensors and GGUF files made for the tests, byte by byte."""

from __future__ import annotations

import json
import struct

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "F8_E4M3": 1, "I8": 1, "BOOL": 1}


def safetensors_header(tensors, metadata=None):
    """Return the JSON header for ``{name: (dtype, shape)}`` and the bytes of the data."""
    entries, place = {}, 0
    if metadata:
        entries["__metadata__"] = metadata
    for name, (dtype, shape) in tensors.items():
        n = WIDTHS[dtype]
        for side in shape:
            n *= side
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + n]}
        place += n
    return json.dumps(entries).encode(), place


def safetensors_bytes(tensors, metadata=None):
    """Return a whole file for ``{name: (dtype, shape)}``, zeros inside."""
    header, n_bytes = safetensors_header(tensors, metadata)
    return struct.pack("<Q", len(header)) + header + bytes(n_bytes)


def write_sparse(path, header, n_bytes):
    """Write a file whose data are a hole: header exact, length true, no space used."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + n_bytes)


def _text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value):
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(item) for item in value)
    return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)


def gguf_header(metadata, tensors, alignment=32):
    """Return the header (padded to the data) of ``{key: value}`` and ``{name: shape}`` in f16, and the data's bytes."""
    out = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    out += [_text(key) + _value(value) for key, value in metadata.items()]
    place = 0
    for name, shape in tensors.items():
        out.append(_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 1, place))
        n = 2
        for side in shape:
            n *= side
        place += -(-n // alignment) * alignment
    head = b"".join(out)
    return head + bytes(-len(head) % alignment), place


def tiny_llama(n_layers=2, n_embd=64, n_vocab=96, vocabulary=()):
    """Return metadata and tensors of a small language model of the plainest kind."""
    metadata = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": 1,
        "llama.block_count": n_layers,
        "llama.context_length": 512,
        "llama.embedding_length": n_embd,
        "llama.feed_forward_length": 2 * n_embd,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.vocab_size": n_vocab,
    }
    if vocabulary:
        metadata["tokenizer.ggml.tokens"] = list(vocabulary)
    tensors = {
        "token_embd.weight": (n_embd, n_vocab),
        "output.weight": (n_embd, n_vocab),
        "output_norm.weight": (n_embd,),
    }
    for i in range(n_layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": (n_embd,),
            f"blk.{i}.attn_q.weight": (n_embd, n_embd),
            f"blk.{i}.attn_k.weight": (n_embd, n_embd // 2),
            f"blk.{i}.attn_v.weight": (n_embd, n_embd // 2),
            f"blk.{i}.attn_output.weight": (n_embd, n_embd),
            f"blk.{i}.ffn_norm.weight": (n_embd,),
            f"blk.{i}.ffn_gate.weight": (n_embd, 2 * n_embd),
            f"blk.{i}.ffn_up.weight": (n_embd, 2 * n_embd),
            f"blk.{i}.ffn_down.weight": (2 * n_embd, n_embd),
        }
    return metadata, tensors


def tiny_projector(n_embd=64):
    """Return metadata and tensors of a small projector file."""
    metadata = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.vision.image_size": 56,
        "clip.vision.patch_size": 14,
        "clip.vision.embedding_length": 32,
        "clip.vision.feed_forward_length": 64,
        "clip.vision.block_count": 1,
        "clip.vision.projection_dim": n_embd,
        "clip.vision.attention.head_count": 2,
    }
    tensors = {"v.patch_embd.weight": (14, 14, 3, 32), "mm.0.weight": (32, n_embd), "mm.2.weight": (n_embd, n_embd)}
    return metadata, tensors


def gguf_bytes(metadata, tensors):
    """Return a whole file, zeros inside."""
    header, n_bytes = gguf_header(metadata, tensors)
    return header + bytes(n_bytes)
