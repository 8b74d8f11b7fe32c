"""The header reader against the ``gguf`` library, on every true header, and on the forms a header may take."""

from __future__ import annotations

import struct
import tracemalloc

import gguf
import pytest
from gguf_headers import headers, read_bytes
from untraced import untraced

from planner.errors import SourceError
from planner.quantization import BY_GGML_ID
from planner.sources.bytes import MemoryBytes
from planner.sources.gguf import read_gguf, read_parts


def text(value: str, order: str = "<") -> bytes:
    """Return a GGUF string."""
    data = value.encode()
    return struct.pack(order + "Q", len(data)) + data


def word(key: str, value: str, order: str = "<") -> bytes:
    """Return a key with a string."""
    return text(key, order) + struct.pack(order + "I", 8) + text(value, order)


def number(key: str, value: int, order: str = "<") -> bytes:
    """Return a key with an unsigned 32-bit integer."""
    return text(key, order) + struct.pack(order + "II", 4, value)


def strings(key: str, values: list[str]) -> bytes:
    """Return a key with an array of strings."""
    return text(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(text(value) for value in values)


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0, order: str = "<") -> bytes:
    """Return a tensor's entry."""
    head = text(name, order) + struct.pack(order + "I", len(shape))
    return head + struct.pack(f"{order}{len(shape)}QIQ", *shape, kind, offset)


def header(keys: list[bytes], tensors: list[bytes], version: int = 3, order: str = "<") -> bytes:
    """Return a header, padded to where its data begin."""
    start = b"GGUF" + struct.pack(order + "IQQ", version, len(tensors), len(keys))
    body = start + b"".join(keys) + b"".join(tensors)
    return body + bytes(-len(body) % 32)


@pytest.mark.parametrize("name", sorted(headers()))
def test_reads_what_the_gguf_library_reads(name, tmp_path):
    """Every key, tensor name, shape, format and absolute offset is the one the reference reader finds."""
    data = headers()[name]
    ours = read_bytes(data, name)
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(data)
        end = max(t.offset_bytes + t.n_bytes for t in ours.tensors)
        file.truncate(ours.data_offsets[0] + end)
    assert read_gguf(path).tensors == ours.tensors
    theirs = gguf.GGUFReader(path)
    found = [
        (t.name, t.shape, BY_GGML_ID_BACK[t.format], t.n_bytes, ours.data_offsets[0] + t.offset_bytes)
        for t in ours.tensors
    ]
    wanted = [
        (t.name, tuple(int(n) for n in t.shape), int(t.tensor_type), int(t.n_bytes), int(t.data_offset))
        for t in theirs.tensors
    ]
    assert found == wanted
    keys = {key for key in theirs.fields if not key.startswith("GGUF.")}
    assert keys == ours.metadata.keys() | ours.array_lengths.keys()
    for key in keys & ours.metadata.keys():
        value = theirs.fields[key].contents()
        assert ours.metadata[key] == (tuple(value) if isinstance(value, list) else value), key


BY_GGML_ID_BACK = {block.name: number for number, block in BY_GGML_ID.items()}


@pytest.mark.parametrize(("version", "order"), [(2, "<"), (3, "<"), (3, ">")])
def test_versions_and_byte_orders(version, order):
    """Versions 2 and 3 and both byte orders say the same."""
    keys = [word("general.architecture", "llama", order), number("llama.block_count", 7, order)]
    data = header(keys, [tensor("a", (32, 3), 2, 0, order), tensor("b", (5,), 0, 64, order)], version, order)
    read = read_bytes(data)
    assert read.metadata == {"general.architecture": "llama", "llama.block_count": 7}
    assert [(t.name, t.shape, t.format, t.offset_bytes, t.n_bytes) for t in read.tensors] == [
        ("a", (32, 3), "q4_0", 0, 54),
        ("b", (5,), "f32", 64, 20),
    ]


def test_a_vocabulary_of_a_quarter_of_a_million_is_skipped_fast():
    """262,144 tokens, their scores, types and merges cost little time and no memory, and their count is known."""
    tokens = [f"tok{index}" for index in range(1 << 18)]
    scores = text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 1 << 18) + bytes(4 << 18)
    data = header([strings("tokenizer.ggml.tokens", tokens), scores, number("x.y", 9)], [tensor("a", (8,))])
    seconds = []
    for _ in range(5):
        with untraced() as spent:
            read = read_bytes(data)
        seconds.append(spent.seconds)
    assert read.array_lengths == {"tokenizer.ggml.tokens": 1 << 18, "tokenizer.ggml.scores": 1 << 18}
    assert read.metadata == {"x.y": 9}
    assert min(seconds) < 0.06
    tracemalloc.start()
    read_bytes(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


def test_long_texts_are_cut_and_long_arrays_only_counted():
    """A chat template does not fill memory, nor do arrays that no planner needs."""
    numbers = text("long") + struct.pack("<IIQ", 9, 4, 5000) + bytes(20000)
    read = read_bytes(header([word("tokenizer.chat_template", "x" * 70000), numbers], []))
    assert len(read.metadata["tokenizer.chat_template"]) < 70000
    assert "long" not in read.metadata
    assert read.array_lengths["long"] == 5000


def split_parts(counts: tuple[int, ...] = (0, 1, 2)) -> dict[str, MemoryBytes]:
    """Return a model in as many parts as ``counts`` has numbers, each with so many tensors."""
    parts = {}
    for index, count in enumerate(counts):
        keys = [number("split.no", index), number("split.count", len(counts)), word("general.architecture", "llama")]
        entries = [tensor(f"t{index}.{n}", (8,), 0, 32 * n) for n in range(count)]
        name = f"m-{index + 1:05d}-of-{len(counts):05d}.gguf"
        parts[name] = MemoryBytes(name=name, data=header(keys, entries) + bytes(32 * count))
    return parts


def test_parts_of_a_split_model_are_one():
    """Tensors of all parts are listed with the part they lie in, and the parts' lengths add up."""
    parts = split_parts()
    read = read_parts(tuple(parts), lambda name: parts[name])
    assert [(t.name, t.part_index) for t in read.tensors] == [("t1.0", 1), ("t2.0", 2), ("t2.1", 2)]
    assert read.file_bytes == sum(part.size for part in parts.values())


def test_any_part_on_disk_stands_for_the_whole(tmp_path):
    """Whichever part is named, all are read; a missing one is an error that names it."""
    for name, part in split_parts().items():
        (tmp_path / name).write_bytes(part.data)
    assert len(read_gguf(tmp_path / "m-00003-of-00003.gguf").tensors) == 3
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(SourceError, match="m-00002-of-00003"):
        read_gguf(tmp_path / "m-00001-of-00003.gguf")


def test_a_renamed_part_is_refused():
    """A part that says it is another one is not silently taken."""
    parts = list(split_parts().values())
    with pytest.raises(SourceError, match="original names"):
        read_parts(("a", "b", "c"), lambda name: parts["abc".index(name) - 1])
    with pytest.raises(SourceError, match="original names"):
        read_parts(("lonely",), lambda _: parts[1])
