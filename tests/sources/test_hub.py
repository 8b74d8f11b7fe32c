"""The hub: the local cache first, the network only when allowed, names that cannot lead elsewhere."""

from __future__ import annotations

import json
import sys
import types

import pytest
from sources.checkpoints import gguf_bytes, safetensors_bytes, tiny_llama, tiny_projector
from sources.range_server import range_server

from planner.errors import SourceError, UsageError
from planner.sources import hub
from planner.sources.opening import open_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
}
WEIGHTS = safetensors_bytes({"model.embed_tokens.weight": ("BF16", (96, 64)), "lm_head.weight": ("BF16", (96, 64))})


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own: no cache, no token, no endpoint of the machine."""
    for name in (
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_ENDPOINT",
        "HF_HUB_OFFLINE",
        "XDG_CACHE_HOME",
        "HF_TOKEN_PATH",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def cache(home, repository, files, revision="main"):
    """Write a repository into the cache as huggingface_hub does."""
    folder = home / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, data in files.items():
        (snapshot / name).write_bytes(data)


def listing(*names):
    """Return the hub's answer about a repository's files."""
    return json.dumps({"siblings": [{"rfilename": name} for name in names]}).encode()


def remote(repository, files, revision="main"):
    """Return what a server must hold to stand for the hub."""
    served = {f"/{repository}/resolve/{revision}/{name}": data for name, data in files.items()}
    return {f"/api/models/{repository}/revision/{revision}": listing(*files), **served}


def test_cache_comes_first(home):
    """A repository in the local cache is read from there, without a network."""
    cache(home, "org/name", {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": WEIGHTS})
    model = open_model("hf:org/name", engine="vllm")
    assert (model.hf_id, model.language.n_layers, model.quantization) == ("org/name", 2, "bf16")
    assert model.parameters is not None
    assert model.parameters.total == 2 * 96 * 64
    assert open_model("org/name", engine="vllm").hf_id == "org/name"
    assert open_model(f"org/name@{COMMIT}", engine="vllm").hf_id == "org/name"


@pytest.mark.usefixtures("home")
def test_nothing_is_asked_without_online(monkeypatch):
    """A hub id that is not cached is an error that says how to allow the network; offline it stays one."""
    with range_server() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.base)
        with pytest.raises(SourceError, match="not in the local cache; add --online"):
            open_model("org/name")
        with pytest.raises(SourceError, match="--offline forbids"):
            open_model("hf:org/name", online=True, offline=True)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SourceError, match="HF_HUB_OFFLINE"):
            open_model("hf:org/name", online=True)
        assert served.n_requests == 0


@pytest.mark.usefixtures("home")
def test_remote_folder_is_read_in_few_requests(monkeypatch):
    """Listing, configuration, index and two requests or fewer per shard are all that is asked."""
    shards = {
        f"model-{i:05d}-of-00002.safetensors": safetensors_bytes({f"model.layers.{i}.w": ("BF16", (8, 8))})
        for i in (1, 2)
    }
    index = {"weight_map": {f"model.layers.{i}.w": name for i, name in enumerate(shards, 1)}}
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": json.dumps(index).encode(),
        **shards,
    }
    with range_server(files=remote("org/name", files)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.base)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        model = open_model("hf:org/name", engine="vllm", online=True)
        assert model.stored is not None
        assert model.stored.total_bytes == 2 * 8 * 8 * 2
        per_shard = [sum(path.endswith(name) for path, _ in served.seen) for name in shards]
        assert max(per_shard) <= 3
        assert served.n_requests <= 5
        assert all(headers["authorization"] == "Bearer hf_secret" for _, headers in served.seen)


@pytest.mark.usefixtures("home")
def test_gguf_repository_by_tag(monkeypatch):
    """A repository of GGUF files gives the file of the tag, or Q4_K_M, and its projector."""
    tiny = gguf_bytes(*tiny_llama())
    files = {"m-Q4_K_M.gguf": tiny, "m-Q8_0.gguf": tiny, "mmproj-m-f16.gguf": gguf_bytes(*tiny_projector())}
    with range_server(files=remote("org/m-GGUF", files)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.base)
        model = open_model("hf:org/m-GGUF", online=True)
        assert model.notes == ("file m-Q4_K_M.gguf", "projector mmproj-m-f16.gguf")
        assert model.vision is not None
        assert open_model("hf:org/m-GGUF:Q8_0", online=True, projector="none").notes == ("file m-Q8_0.gguf",)
        with pytest.raises(SourceError, match=r"there are: m-Q4_K_M\.gguf, m-Q8_0\.gguf"):
            open_model("hf:org/m-GGUF:Q2_K", online=True)


@pytest.mark.parametrize("status", [401, 403, 404, 429])
@pytest.mark.usefixtures("home")
def test_refusals_of_the_hub_are_one_line(monkeypatch, status):
    """A gated, missing or throttled repository is said as such; the token is in no message."""
    with range_server(statuses={"/api/models/org/name/revision/main": status}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.base)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        with pytest.raises(SourceError, match=f"HTTP {status}") as caught:
            open_model("hf:org/name", online=True)
        assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["org", "org/name/more", "../x", "org/..", "org/na me", "/x/y", "org/--x/..", "org/name@../..", "a\x00/b"]
)
@pytest.mark.usefixtures("home")
def test_odd_hub_ids_are_refused(text):
    """Only org/name with a plain revision and tag is ever made part of an address."""
    with pytest.raises((SourceError, UsageError)):
        open_model(f"hf:{text}", online=True, timeout_s=0.2)


@pytest.mark.usefixtures("home")
def test_names_of_a_listing_cannot_lead_elsewhere(monkeypatch):
    """A listing with path tricks is cleaned: such files are as good as not there."""
    files = {"/api/models/org/name/revision/main": listing("../../etc/passwd", "config.json", "/abs", "a\x00b")}
    with range_server(files=files) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.base)
        folder = hub.open_remote(hub.parse_hub_id("org/name"), hub.Network(allowed=True))
        assert folder.files == ("config.json",)


def test_places_of_cache_and_token(home):
    """The documented variables decide, in the documented order."""
    assert hub.cache_directory({"HF_HUB_CACHE": "/c"}).as_posix() == "/c"
    assert hub.cache_directory({"HF_HOME": "/h"}).as_posix() == "/h/hub"
    assert hub.cache_directory({"HOME": "/u"}).as_posix() == "/u/.cache/huggingface/hub"
    (home / "hf").mkdir()
    (home / "hf" / "token").write_text("from-file\n")
    assert hub.login_token({"HF_HOME": str(home / "hf")}) == "from-file"
    assert hub.login_token({"HF_HOME": str(home / "hf"), "HF_TOKEN": "env"}) == "env"
    assert hub.login_token({"HF_TOKEN": "two\nlines"}) is None


def test_token_of_the_library(home, monkeypatch):
    """Where huggingface_hub is installed, a login it knows is used; a broken installation is as none."""
    library = types.ModuleType("huggingface_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    assert hub.login_token({"HF_HOME": str(home)}) is None
    library.get_token = lambda: "from-library"
    assert hub.login_token({"HF_HOME": str(home)}) == "from-library"
    assert hub.login_token({"HF_HOME": str(home), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}) is None
