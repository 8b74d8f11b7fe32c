"""Headers of safetensors files: the same as the library's reading, and one line for everything that lies."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
from sources.checkpoints import safetensors_bytes, safetensors_header, write_sparse
from untraced import untraced

from planner.errors import SourceError
from planner.quantization import tensor_bytes
from planner.sources.bytes import FileBytes, MemoryBytes
from planner.sources.safetensors import read_header, read_index, read_sharded

TENSORS = {
    "model.embed.weight": ("BF16", (32, 16)),
    "model.norm.weight": ("F32", (16,)),
    "scale": ("F32", ()),
    "empty": ("F16", (0, 4)),
    "packed.qweight": ("I32", (4, 8)),
    "mask": ("BOOL", (3,)),
}


def read(data):
    """Return what the reader makes of ``data``."""
    return read_header(MemoryBytes(name="f.safetensors", data=data))


def raw(header, n_bytes=0):
    """Return a file of this header, as text or as an object."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(n_bytes)


def entry(begin, end, shape=(2,), dtype="F32"):
    """Return one header entry."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_equal_to_the_library(tmp_path):
    """Names, types, shapes and bytes are those that the safetensors library reads."""
    library = pytest.importorskip("safetensors")
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes(TENSORS, {"format": "pt"}))
    found = read_header(FileBytes(path=path))
    with library.safe_open(str(path), framework="np") as file:
        assert set(file.keys()) == {tensor.name for tensor in found.tensors}
        for tensor in found.tensors:
            theirs = file.get_slice(tensor.name)
            assert tuple(theirs.get_shape()) == (tuple(reversed(tensor.shape)) if TENSORS[tensor.name][1] else ())
        assert found.metadata == file.metadata()
    assert found.file_bytes == path.stat().st_size


def test_library_refuses_what_is_refused_here(tmp_path):
    """Files with holes, overlaps or cut data are refused by the library too: no honest file is turned away."""
    library = pytest.importorskip("safetensors")
    for name, data in BAD.items():
        if name in {"odd_dtype", "duplicate", "deep"}:
            continue
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        with pytest.raises(library.SafetensorError), library.safe_open(str(path), framework="np"):
            pass


BAD = {
    "empty": b"",
    "seven": b"1234567",
    "length_beyond_file": struct.pack("<Q", 1000) + b"{}",
    "length_enormous": struct.pack("<Q", 2**63) + b"{}",
    "not_object": raw(b"[1,2,3]"),
    "not_json": raw(b"{not json"),
    "overlap": raw({"a": entry(0, 8), "b": entry(4, 12)}, 12),
    "hole": raw({"a": entry(0, 8), "b": entry(16, 24)}, 24),
    "beyond_end": raw({"a": entry(0, 8)}, 4),
    "trailing": raw({"a": entry(0, 8)}, 64),
    "size_mismatch": raw({"a": entry(0, 8, (3,))}, 8),
    "negative_shape": raw({"a": entry(0, 8, (-2,))}, 8),
    "backwards": raw({"a": entry(8, 0)}, 8),
    "odd_dtype": raw({"a": entry(0, 8, dtype="Q3")}, 8),
    "entry_is_list": raw({"a": [1, 2]}),
    "shape_is_text": raw({"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, 8),
    "duplicate": raw(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        8,
    ),
    "deep": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "huge_shape": raw({"a": entry(0, 8, (2**61, 2**61))}, 8),
    "not_utf8": raw(b'{"\xff\xfe": 1}'),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_damaged_files_are_one_line(name):
    """Whatever is wrong with a header, the reader says so in one line and raises nothing else."""
    with pytest.raises(SourceError) as caught:
        read(BAD[name])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


LARGE = {
    "lists": b'{"a":[' + b"[]," * 3_000_000 + b"[]]}",
    "objects": b'{"a":[' + b'{"b":1},' * 190_000 + b"{}]}",
    "numbers": b'{"a":[' + b"1e9," * 390_000 + b"1]}",
    "long_key": b'{"' + b"a" * 11_000_000 + b'":1}',
    "wide_text": '{"😀'.encode() + b"a" * 11_000_000 + b'":1}',
    "keys": b"{" + b",".join(b'"%d":1' % n for n in range(390_000)) + b"}",
}


@pytest.mark.parametrize("name", sorted(LARGE))
def test_headers_made_to_fill_memory(name):
    """A header built to fill memory or time is refused within a second and 100 MB."""
    data = raw(LARGE[name])
    with untraced() as spent, pytest.raises(SourceError):
        read(data)
    assert spent.seconds < 1
    tracemalloc.start()
    with pytest.raises(SourceError):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def honest(n_tensors):
    """Return a shard of many small tensors."""
    names = {f"model.layers.{i}.mlp.experts.down_proj.weight": ("BF16", (1, 1)) for i in range(n_tensors)}
    return raw(*safetensors_header(names))


def test_honest_large_headers_are_read():
    """A shard of 50,000 tensors is read within a second, and one of 10,000 in a fifth of 100 MB."""
    data = honest(50_000)
    with untraced() as spent:
        assert len(read(data).tensors) == 50_000
    assert spent.seconds < 1
    data = honest(10_000)
    tracemalloc.start()
    read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_sharded_checkpoint_is_the_sum_of_its_shards(tmp_path):
    """An index with its shards gives all tensors; file bytes are those of the files."""
    weight_map = {}
    for i in (1, 2):
        shard = f"model-{i:05d}-of-00002.safetensors"
        tensors = {f"layers.{i}.weight": ("F16", (8, 4)), f"layers.{i}.bias": ("F32", (8,))}
        (tmp_path / shard).write_bytes(safetensors_bytes(tensors))
        weight_map |= dict.fromkeys(tensors, shard)
    found = read_sharded(weight_map, lambda name: FileBytes(path=tmp_path / name), "m")
    assert found.data_bytes == 2 * (8 * 4 * 2 + 8 * 4)
    assert found.file_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert found.n_shards == 2


def test_index_and_shards_must_agree(tmp_path):
    """A shard that lacks a tensor of the index, or has one more, belongs to another checkpoint."""
    (tmp_path / "s.safetensors").write_bytes(safetensors_bytes({"a": ("F16", (2,)), "b": ("F16", (2,))}))

    def opener(name):
        path = tmp_path / name
        return FileBytes(path=path) if path.exists() else None

    for weight_map in ({"a": "s.safetensors"}, dict.fromkeys("abc", "s.safetensors")):
        with pytest.raises(SourceError, match="belong together"):
            read_sharded(weight_map, opener, "m")
    with pytest.raises(SourceError, match="not there"):
        read_sharded({"a": "missing.safetensors"}, opener, "m")


@pytest.mark.parametrize(
    "shard",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\secret.safetensors",
        "sub/../../x.safetensors",
        "C:\\x.safetensors",
        "x.safetensors\x00.txt",
        "a..b.safetensors",
        ".hidden.safetensors",
        "model.bin",
        7,
        None,
    ],
)
def test_path_tricks_of_an_index_are_refused(shard):
    """A shard is a plain file name beside the index; anything that could lead elsewhere is refused."""
    with pytest.raises(SourceError, match="not a plain safetensors file name"):
        read_index(json.dumps({"weight_map": {"a": shard}}).encode(), "index.json")


def test_bytes_of_a_sparse_giant(tmp_path):
    """A 20 GB shard is read by its header alone."""
    header, n_bytes = safetensors_header({"w": ("BF16", (100_000, 100_000))})
    path = tmp_path / "big.safetensors"
    write_sparse(path, header, n_bytes)
    (tensor,) = read_header(FileBytes(path=path)).tensors
    assert tensor_bytes(tensor.format, tensor.shape) == 20_000_000_000
