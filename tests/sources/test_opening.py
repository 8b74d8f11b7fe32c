"""One function for every way to name a model: files, split files, projectors inside and beside, folders, names."""

from __future__ import annotations

import tracemalloc

import pytest
from sources.checkpoints import gguf_bytes, tiny_llama, tiny_projector
from sources.test_hf import TINY, folder
from untraced import untraced

from planner.errors import SourceError, UsageError
from planner.sources.opening import open_model
from planner.sources.remote import RemoteBytes


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may ask for anything: a read of a remote file is a failure."""

    def refuse(*_args):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(RemoteBytes, "read", refuse)


def tiny(**more):
    """Return a small language file with further keys."""
    metadata, tensors = tiny_llama()
    return gguf_bytes({**metadata, **more}, tensors)


def test_projector_beside_the_model_is_found_and_said(tmp_path):
    """A projector in the model's folder that fits its width is used, and the note names it."""
    (tmp_path / "tiny-Q4.gguf").write_bytes(tiny())
    (tmp_path / "mmproj-tiny.gguf").write_bytes(gguf_bytes(*tiny_projector()))
    (tmp_path / "mmproj-other.gguf").write_bytes(gguf_bytes(*tiny_projector(n_embd=128)))
    (tmp_path / "mmproj-broken.gguf").write_bytes(b"GGUF")
    model = open_model(str(tmp_path / "tiny-Q4.gguf"))
    assert model.vision is not None
    assert model.projector_source.endswith("mmproj-tiny.gguf")
    assert model.notes == ("projector found beside the model: mmproj-tiny.gguf",)


def test_projector_none_means_text_only(tmp_path):
    """With 'none' neither a projector beside nor one inside is used."""
    (tmp_path / "tiny.gguf").write_bytes(tiny())
    (tmp_path / "mmproj.gguf").write_bytes(gguf_bytes(*tiny_projector()))
    model = open_model(str(tmp_path / "tiny.gguf"), projector="none")
    assert model.vision is None
    assert model.projector_file_bytes is None


def test_projector_that_was_named_wins(tmp_path):
    """A projector by path is taken from wherever it is."""
    (tmp_path / "tiny.gguf").write_bytes(tiny())
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "p.gguf").write_bytes(gguf_bytes(*tiny_projector()))
    model = open_model(str(tmp_path / "tiny.gguf"), projector=str(tmp_path / "deep" / "p.gguf"))
    assert model.vision is not None
    with pytest.raises(SourceError):
        open_model(str(tmp_path / "tiny.gguf"), projector=str(tmp_path / "missing.gguf"))


def test_projector_inside_the_file(tmp_path):
    """A single file with both parts, as Ollama keeps some, is two parts: the language's bytes exclude the tower's."""
    metadata, tensors = tiny_llama()
    renamed = {key.replace("llama.", "gemma3."): value for key, value in metadata.items()}
    inside = {"v.patch_embd.weight": (14, 14, 3, 32), "mm.0.weight": (32, 64)}
    keys = {
        f"gemma3.vision.{key}": n
        for key, n in (
            ("block_count", 1),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("patch_size", 14),
            ("image_size", 56),
            ("attention.head_count", 2),
        )
    }
    (tmp_path / "one.gguf").write_bytes(
        gguf_bytes({**renamed, "general.architecture": "gemma3", **keys}, {**tensors, **inside})
    )
    model = open_model(str(tmp_path / "one.gguf"))
    assert {t.name for t in model.language.tensors} == set(tensors)
    assert model.vision is not None
    assert model.vision.projector == "gemma3"
    assert {t.name for t in model.vision.tensors} == set(inside)
    assert "mtmd" in model.vision.rules
    text = open_model(str(tmp_path / "one.gguf"), projector="none")
    assert text.vision is None
    assert text.language.tensors == model.language.tensors


def test_keys_that_a_single_file_leaves_out(tmp_path):
    """Where a single file does not say what a projector file would, the converter's constants stand in."""
    metadata, tensors = tiny_llama()
    renamed = {key.replace("llama.", "qwen25vl."): value for key, value in metadata.items()}
    keys = {"block_count": 1, "embedding_length": 32, "patch_size": 14, "attention.head_count": 2}
    metadata = {**renamed, "general.architecture": "qwen25vl", **{f"qwen25vl.vision.{k}": n for k, n in keys.items()}}
    (tmp_path / "one.gguf").write_bytes(gguf_bytes(metadata, {**tensors, "v.patch_embd.weight": (14, 14, 3, 32)}))
    model = open_model(str(tmp_path / "one.gguf"))
    assert model.language.architecture == "qwen2vl"
    assert model.language.n_layers == 2
    assert model.vision is not None
    assert (model.vision.image_size, model.vision.projector) == (560, "qwen2.5vl_merger")


def test_any_part_of_a_split_file_opens_the_whole(tmp_path):
    """Naming the second part reads all parts; a missing one is said by name."""
    metadata, tensors = tiny_llama()
    names = list(tensors)
    for i, part in enumerate((names[:7], names[7:])):
        keys = {**(metadata if i == 0 else {}), "split.no": i, "split.count": 2}
        (tmp_path / f"t-{i + 1:05d}-of-00002.gguf").write_bytes(gguf_bytes(keys, {n: tensors[n] for n in part}))
    model = open_model(str(tmp_path / "t-00002-of-00002.gguf"))
    assert len(model.language.tensors) == len(tensors)
    (tmp_path / "t-00001-of-00002.gguf").unlink()
    with pytest.raises(SourceError, match="t-00001-of-00002"):
        open_model(str(tmp_path / "t-00002-of-00002.gguf"))


def test_folder_of_gguf_files(tmp_path):
    """A folder without configuration but with one model file is that file."""
    (tmp_path / "tiny.gguf").write_bytes(tiny())
    (tmp_path / "mmproj.gguf").write_bytes(gguf_bytes(*tiny_projector()))
    assert open_model(str(tmp_path)).vision is not None
    (tmp_path / "other.gguf").write_bytes(tiny())
    with pytest.raises(SourceError, match=r"there are: other\.gguf, tiny\.gguf"):
        open_model(str(tmp_path))


def test_folder_by_its_files(tmp_path):
    """The configuration's or the index's own path means its folder."""
    path = folder(tmp_path / "m", TINY)
    for name in (path, path / "config.json"):
        assert open_model(str(name), engine="vllm").language.n_layers == 2
    gguf = open_model(str(path), engine="ollama", quantization="Q8_0")
    assert gguf.quantization == "Q8_0"
    assert {tensor.format for tensor in gguf.language.tensors} == {"q8_0", "f32"}
    with pytest.raises(UsageError):
        open_model(str(path), quantization="Q99")


def test_profiles_by_name_and_hub_id():
    """A profile's name, alias or hub id, in any case, is the catalogue's model."""
    for name in ("qwen2.5-vl-7b", "QWEN2.5-VL-7B", "Qwen/Qwen2.5-VL-7B-Instruct"):
        assert open_model(name).name == "qwen2.5-vl-7b"
    with pytest.raises(UsageError, match="did you mean"):
        open_model("qwen2.5-vl-7bb")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b"),
        ("https://hf.co/Qwen/Qwen2.5-VL-7B-Instruct/", "qwen2.5-vl-7b"),
        ("https://ollama.com/library/llava:13b", "llava-1.6-vicuna-13b"),
    ],
)
def test_the_address_of_a_models_page_is_that_model(address, name):
    """What people copy from a browser is read as the name on that page, and a profile needs no network."""
    assert open_model(address, offline=True).name == name


def test_a_file_that_is_not_there_yet_is_known_by_its_name():
    """The file of a plan's own command, not downloaded yet, is asked for as the profile and file type in its name."""
    with pytest.raises(SourceError, match=r"no such file .* qwen2\.5-vl-7b with --quantization Q4_K_M"):
        open_model("models/qwen2.5-vl-7b-Q4_K_M.gguf")


@pytest.mark.parametrize("source", ["ollama:qwen2.5vl:7b", "hf:Qwen/Qwen2.5-VL-7B-Instruct"])
def test_a_source_that_is_not_here_names_the_profile_that_is(tmp_path, monkeypatch, source):
    """Where only the network has it, the line says that the catalogue knows the model."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match=r"--online .* or name the profile: qwen2\.5-vl-7b"):
        open_model(source)


@pytest.mark.parametrize(
    "source", ["", "   ", "a\x00b", "x" * 5000, "./missing.gguf", "/missing/folder", "missing.gguf", "~/nothing/here"]
)
def test_sources_that_are_nothing(source):
    """Whatever does not name a model is one line."""
    with pytest.raises((SourceError, UsageError)) as caught:
        open_model(source)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_refused(tmp_path):
    """A text, an empty file, a pipe's place and a picture are no models."""
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text.txt").write_text("hello")
    for name in ("pipe", "empty", "text.txt"):
        with pytest.raises(SourceError):
            open_model(str(tmp_path / name))


def test_long_vocabularies_are_skipped_fast(tmp_path):
    """A header with 262,144 words is read in 60 ms of one core and a few megabytes."""
    metadata, tensors = tiny_llama(vocabulary=[f"word{i}" for i in range(262_144)])
    path = tmp_path / "v.gguf"
    path.write_bytes(gguf_bytes(metadata, tensors))
    open_model(str(path))
    found = []
    for _ in range(3):
        with untraced() as spent:
            open_model(str(path))
        found.append(spent.seconds)
    assert min(found) < 0.060
    tracemalloc.start()
    open_model(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
