"""Ollama's store and registry: a tag is found, its blobs are read, and a manifest cannot lead out of the store."""

from __future__ import annotations

import hashlib
import json

import pytest
from sources.checkpoints import gguf_bytes, tiny_llama, tiny_projector
from sources.range_server import range_server

from planner.errors import SourceError
from planner.sources import ollama
from planner.sources.network import Network
from planner.sources.opening import open_model

ONLINE = Network(allowed=True, timeout_s=5.0)
MODEL = gguf_bytes(*tiny_llama())
PROJECTOR = gguf_bytes(*tiny_projector())
MEDIA = "application/vnd.ollama.image."


def layer(kind, data):
    """Return a manifest's entry for a blob."""
    return {"mediaType": MEDIA + kind, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data)}


def manifest(**blobs):
    """Return the manifest of blobs by kind."""
    return json.dumps({"schemaVersion": 2, "layers": [layer(kind, data) for kind, data in blobs.items()]}).encode()


def store(root, text, **blobs):
    """Write a store that holds one tag."""
    tag = ollama.parse_tag(text)
    path = root / "manifests" / tag.host / tag.namespace / tag.name / tag.tag
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest(**blobs))
    (root / "blobs").mkdir(exist_ok=True)
    for data in blobs.values():
        (root / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}").write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("tiny", "registry.ollama.ai/library/tiny:latest"),
        ("tiny:1b-q4_0", "registry.ollama.ai/library/tiny:1b-q4_0"),
        ("me/tiny:x", "registry.ollama.ai/me/tiny:x"),
        ("hf.co/org/name:Q4_K_M", "hf.co/org/name:Q4_K_M"),
        ("localhost:5000/me/tiny", "localhost:5000/me/tiny:latest"),
    ],
)
def test_names_unfold_as_in_ollama(text, full):
    """A short name means the library on the default registry and the tag latest."""
    tag = ollama.parse_tag(text)
    assert f"{tag.host}/{tag.namespace}/{tag.name}:{tag.tag}" == full


@pytest.mark.parametrize(
    "text", ["", ":", "a:", "../../etc/passwd", "..", "a/b/c/d", "a/../b", "a:../../x", "a b", "a\x00", "-a"]
)
def test_names_that_lead_elsewhere_are_refused(text):
    """No name reaches a path outside the store."""
    with pytest.raises(SourceError, match="not an Ollama name"):
        ollama.parse_tag(text)


def test_places_of_the_store():
    """OLLAMA_MODELS stands alone; without it the user's store comes before the service's."""
    assert [str(p) for p in ollama.store_directories({"OLLAMA_MODELS": "/data/m"})] == ["/data/m"]
    found = [str(p) for p in ollama.store_directories({"HOME": "/home/u"})]
    assert found == ["/home/u/.ollama/models", "/usr/share/ollama/.ollama/models"]


def test_tag_of_the_store_becomes_a_model(tmp_path, monkeypatch):
    """Manifest, blobs, projector and parameters make one model, named by its tag."""
    params = json.dumps({"num_ctx": 8192, "stop": ["x"], "temperature": 0.7}).encode()
    store(
        tmp_path, "tiny:1b", model=MODEL, projector=PROJECTOR, params=params, template=b"{{ .Prompt }}", license=b"free"
    )
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    model = open_model("ollama:tiny:1b", engine="ollama")
    assert model.name == "tiny:1b"
    assert model.language.n_layers == 2
    assert model.vision is not None
    assert (model.file_bytes, model.projector_file_bytes) == (len(MODEL), len(PROJECTOR))
    assert "Modelfile: num_ctx 8192" in model.notes
    assert open_model("ollama:tiny:1b", projector="none").vision is None


def test_missing_and_cut_blobs_are_said(tmp_path):
    """A blob that is gone or shorter than the manifest says is one line that names it."""
    store(tmp_path, "tiny", model=MODEL)
    blob = next((tmp_path / "blobs").iterdir())
    blob.write_bytes(MODEL[:-1])
    with pytest.raises(SourceError, match="pull the tag again"):
        ollama.open_stored(ollama.parse_tag("tiny"), (tmp_path,))
    blob.unlink()
    with pytest.raises(SourceError, match="missing"):
        ollama.open_stored(ollama.parse_tag("tiny"), (tmp_path,))


@pytest.mark.parametrize(
    "digest", ["sha256:../../etc/passwd", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "md5:0", "", 5, "../x"]
)
def test_digests_are_checked_for_form(digest):
    """A digest is 64 hexadecimal digits: nothing else can name a blob."""
    data = json.dumps({"layers": [{"mediaType": MEDIA + "model", "digest": digest, "size": 1}]}).encode()
    with pytest.raises(SourceError):
        ollama.read_manifest(data, "m")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"layers": {}}', b'{"layers": [1]}', b'{"layers": []}', b"\xff"])
def test_damaged_manifests_are_one_line(data):
    """Anything that is no manifest with a model is refused."""
    with pytest.raises(SourceError):
        ollama.read_manifest(data, "m")


def test_tag_that_is_not_pulled_is_read_from_the_registry(tmp_path, monkeypatch):
    """With --online the manifest and the blobs' headers come from the registry, by range."""
    digest = hashlib.sha256(MODEL).hexdigest()
    files = {"/v2/me/tiny/manifests/1b": manifest(model=MODEL), f"/v2/me/tiny/blobs/sha256:{digest}": MODEL}
    with range_server(files=files) as served:
        tag = ollama.parse_tag(f"{served.base.removeprefix('http://')}/me/tiny:1b")
        found = ollama.open_registry(tag, ONLINE, scheme="http")
        assert found.model.read(0, 4) == b"GGUF"
        with pytest.raises(SourceError, match="has no"):
            ollama.open_registry(
                ollama.parse_tag(f"{served.base.removeprefix('http://')}/me/other"), ONLINE, scheme="http"
            )
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    with pytest.raises(SourceError, match="in no local Ollama store; add --online"):
        open_model("ollama:tiny:1b")


def test_running_server_is_asked():
    """/api/ps and /api/show of a running server become values; a server that is no Ollama is refused."""
    ps = {"models": [{"name": "tiny:1b", "size": 500, "size_vram": 300, "context_length": 4096}]}
    show = {"parameters": 'num_ctx    8192\nstop    "<a>"\nstop    "<b>"\ntemperature 0.5\n'}
    files = {"/api/ps": json.dumps(ps).encode(), "/api/show": json.dumps(show).encode()}
    with range_server(files=files) as served:
        (running,) = ollama.running_models(ONLINE, served.base)
        assert (running.name, running.size_bytes, running.vram_bytes, running.context_tokens) == (
            "tiny:1b",
            500,
            300,
            4096,
        )
        found = ollama.model_parameters(ONLINE, served.base, ollama.parse_tag("tiny:1b"))
        assert found == {"num_ctx": 8192, "stop": "<a>", "temperature": 0.5}
        assert json.loads(served.posted[0]) == {"model": "tiny:1b"}
    with range_server() as served, pytest.raises(SourceError, match="no Ollama"):
        ollama.running_models(ONLINE, served.base)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104 - a server's setting, not ours
        ("box:1234", "http://box:1234"),
        (":1234", "http://127.0.0.1:1234"),
        ("https://box", "https://box:11434"),
    ],
)
def test_server_address(host, address):
    """OLLAMA_HOST may be a host, a port or an address."""
    assert ollama.server_address({"OLLAMA_HOST": host}) == address
