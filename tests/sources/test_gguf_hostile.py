"""Damaged, foreign and malicious files: one line, at once, in little memory."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc

import pytest
from gguf_headers import headers, read_bytes
from sources.test_gguf_reader import header, number, tensor, text, word

from planner.errors import SourceError
from planner.sources.gguf import language_from_gguf, model_from_gguf, read_gguf, vision_from_gguf


def start(n_tensors: int, n_keys: int, version: int = 3) -> bytes:
    """Return the fixed beginning of a header."""
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def key(kind: int, payload: bytes) -> bytes:
    """Return the key ``k`` of a value type with its raw payload."""
    return text("k") + struct.pack("<I", kind) + payload


HOSTILE = {
    "empty": b"",
    "magic only": b"GGUF",
    "text": b"FROM llama3.2-vision\nPARAMETER num_ctx 4096\n" * 9,
    "zip": b"PK\x03\x04" + bytes(100),
    "version 1": start(0, 0, 1),
    "version 99": start(0, 0, 99),
    "2^60 tensors": start(1 << 60, 0),
    "2^60 keys": start(0, 1 << 60),
    "tensors that are not there": start(5, 0),
    "4 GiB string": start(0, 1) + key(8, struct.pack("<Q", 4 << 30)),
    "4 GiB key": start(0, 1) + struct.pack("<Q", 4 << 30),
    "2^64 string": start(0, 1) + key(8, struct.pack("<Q", (1 << 64) - 1)),
    "2^60 numbers": start(0, 1) + key(9, struct.pack("<IQ", 4, 1 << 60)),
    "2^60 strings": start(0, 1) + key(9, struct.pack("<IQ", 8, 1 << 60)) + bytes(64),
    "string array past the end": start(0, 1) + key(9, struct.pack("<IQQ", 8, 2, 1 << 62)) + bytes(64),
    "nested array": start(0, 1) + key(9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 4, 1)) + bytes(64),
    "unknown type": start(0, 1) + key(13, bytes(64)),
    "empty key": header([word("", "x")], []),
    "same key twice": header([number("k", 1), number("k", 2)], []),
    "alignment 0": header([number("general.alignment", 0)], [tensor("a", (8,))]),
    "alignment 33": header([number("general.alignment", 33)], [tensor("a", (8,))]),
    "alignment as text": header([word("general.alignment", "32")], [tensor("a", (8,))]),
    "same tensor twice": header([], [tensor("a", (8,)), tensor("a", (8,), 0, 32)]),
    "overlapping tensors": header([], [tensor("a", (32,)), tensor("b", (8,), 0, 96)]),
    "tensors on one another": header([], [tensor("a", (8,)), tensor("b", (8,))]),
    "crooked offset": header([], [tensor("a", (8,), 0, 5)]),
    "offset out of this world": header([], [tensor("a", (8,), 0, 1 << 63)]),
    "data missing": header([], [tensor("a", (1 << 30,))]),
    "absurd dimensions": header([], [tensor("a", (1 << 62, 1 << 62, 1 << 62, 1 << 62))]),
    "five dimensions": header([], [tensor("a", (2, 2, 2, 2, 2))]),
    "2^31 dimensions": start(1, 0) + text("a") + struct.pack("<I", 1 << 31) + bytes(64),
    "half a block": header([], [tensor("a", (33, 2), 2)]),
    "unknown format": header([], [tensor("a", (32,), 1234)]),
    "removed format": header([], [tensor("a", (32,), 4)]),
    "long name": header([], [tensor("a" * 64, (8,))]),
    "very long name": header([], [tensor("a" * 100_000, (8,))]),
}


def refused(action, limit_bytes: int = 100 << 20) -> str:
    """Return the message of the SourceError that ``action`` raises, having checked its manners."""
    started = time.process_time()
    with pytest.raises(SourceError) as caught:
        action()
    seconds = time.process_time() - started
    tracemalloc.start()
    with pytest.raises(SourceError):
        action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert seconds < 1
    assert peak < limit_bytes
    return message


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(name, tmp_path):
    """Whatever a file claims, it is refused with one line that names it, within a second and 100 MB."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    assert "hostile.gguf" in refused(lambda: read_gguf(path))


def test_no_file_at_all(tmp_path):
    """A missing file, a folder, a pipe and an impossible name are refused by name."""
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    for path in (tmp_path / "missing.gguf", tmp_path, pipe, tmp_path / "nul\0.gguf", tmp_path / ("x" * 400)):
        assert str(tmp_path)[:20] in refused(lambda path=path: read_gguf(path))


def test_impossible_part_numbers(tmp_path):
    """Part 3 of 2 and models of 99,999 parts are no models."""
    for name in ("m-00003-of-00002.gguf", "m-00001-of-99999.gguf", "m-00000-of-00001.gguf"):
        assert "part" in refused(lambda name=name: read_gguf(tmp_path / name))


def test_the_largest_plausible_header_stays_small(tmp_path):
    """32,768 tensors, eight million strings or 16,384 arrays in one file are refused within the limits."""
    tensors = [tensor(f"blk.{index}.w", (8,), 0, 32 * index) for index in range(1 << 15)]
    path = tmp_path / "wide.gguf"
    path.write_bytes(header([number("general.alignment", 32)], tensors))
    refused(lambda: read_gguf(path))
    path.write_bytes(start(0, 2) + key(9, struct.pack("<IQ", 8, 1 << 23)) + bytes(8 << 23))
    refused(lambda: read_gguf(path))
    arrays = [text(f"k{index}") + struct.pack("<IIQ", 9, 0, 1024) + bytes(1024) for index in range(1 << 14)]
    path.write_bytes(header(arrays, []))
    refused(lambda: read_gguf(path))


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b.Q4_0.gguf", "mmproj-qwen2.5-vl-3b.gguf", "gemma-4-e2b.Q4_K_M.gguf"])
def test_every_truncation_is_refused_or_read(name):
    """A file cut anywhere, or with any byte changed, is read or refused in one line, and nothing else happens."""
    data = headers()[name]
    source = random.Random(name)
    read_model = vision_from_gguf if name.startswith("mmproj") else language_from_gguf
    messages = []
    for _ in range(60):
        cut, position = source.randrange(len(data)), source.randrange(len(data))
        changed = data[:position] + bytes([source.randrange(256)]) + data[position + 1 :]
        for damaged in (data[:cut], changed):
            try:
                read_model(read_bytes(damaged))
            except SourceError as error:
                messages.append(str(error))
    assert len(messages) >= 60
    assert not any("\n" in message for message in messages)


def test_a_projector_in_the_place_of_a_model_is_explained(tmp_path):
    """Mixing up the two files is told as such, both ways round."""
    language, projector = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    language.write_bytes(headers()["qwen2.5-vl-3b.Q4_0.gguf"])
    projector.write_bytes(headers()["mmproj-qwen2.5-vl-3b.gguf"])
    with pytest.raises(SourceError, match="projector"):
        model_from_gguf(projector, allow_truncated=True)
    with pytest.raises(SourceError, match="no projector file"):
        model_from_gguf(language, language, allow_truncated=True)
    assert model_from_gguf(language, projector, allow_truncated=True).vision is not None


WRONG = {
    "no layers": [word("general.architecture", "llama"), number("llama.embedding_length", 8)],
    "2^31 layers": [word("general.architecture", "llama"), number("llama.block_count", 1 << 31)],
    "text for a number": [word("general.architecture", "llama"), word("llama.block_count", "four")],
    "only prediction layers": [
        word("general.architecture", "llama"),
        number("llama.block_count", 2),
        number("llama.nextn_predict_layers", 2),
    ],
    "no architecture": [number("llama.block_count", 2)],
}


@pytest.mark.parametrize("name", WRONG)
def test_headers_that_make_no_model(name):
    """A well-formed file whose keys describe no model is refused too."""
    read = read_bytes(header(WRONG[name], [tensor("token_embd.weight", (8, 8))]))
    refused(lambda: language_from_gguf(read))
