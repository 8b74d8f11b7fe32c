"""The command's own words for sources: --online, --offline, --timeout and --profiles hold for one command."""

from __future__ import annotations

import json
from datetime import date

import pytest
import yaml
from sources.checkpoints import gguf_bytes, tiny_llama
from sources.range_server import range_server
from sources.test_ollama import store

from planner.catalog import models
from planner.catalog.writing import profile_yaml
from planner.cli import main
from planner.sources.access import ACCESS, Access


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    """A home without caches, tokens and profiles."""
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "VLPLAN_PROFILES", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(capsys, *words):
    """Run the command; return its exit code, what it printed, and what it complained about."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def hub(monkeypatch, served):
    """Make a server stand for the hub, with one GGUF repository."""
    served.files["/api/models/org/tiny/revision/main"] = json.dumps(
        {"siblings": [{"rfilename": "t-Q4_K_M.gguf"}]}
    ).encode()
    served.files["/org/tiny/resolve/main/t-Q4_K_M.gguf"] = gguf_bytes(*tiny_llama())
    monkeypatch.setenv("HF_ENDPOINT", served.base)


def test_online_holds_for_one_command(monkeypatch, capsys):
    """With --online a hub id is read from the hub; the next command without it asks for nothing."""
    with range_server() as served:
        hub(monkeypatch, served)
        code, out, _ = run(capsys, "inspect", "hf:org/tiny", "--online", "--timeout", "5")
        assert code == 0
        assert "2 x      full attention" in out
        asked = served.n_requests
        assert ACCESS.get() == Access()
        code, _, err = run(capsys, "inspect", "hf:org/tiny")
        assert (code, served.n_requests) == (1, asked)
        assert err == "vlplan: " + err.removeprefix("vlplan: ").replace("\n", "") + "\n"
        code, _, err = run(capsys, "inspect", "hf:org/tiny", "--online", "--offline")
        assert (code, served.n_requests) == (1, asked)
        assert "--offline forbids it" in err


def test_estimate_of_a_remote_model(monkeypatch, capsys):
    """Every command that takes a model takes the same options."""
    with range_server() as served:
        hub(monkeypatch, served)
        words = ("estimate", "hf:org/tiny", "--gpu", "24GiB", "--ram", "32GiB", "--context", "256", "--json")
        code, out, _ = run(capsys, *words, "--online")
        assert code in {0, 4}
        assert json.loads(out)["schema"] == 1
        assert run(capsys, *words)[0] == 1


def test_profile_is_written_and_found(tmp_path, capsys):
    """A profile that inspect wrote is a model by its name under --profiles, for this command only."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes(*tiny_llama(n_embd=256)))
    mine = tmp_path / "mine"
    mine.mkdir()
    assert run(capsys, "inspect", str(path), "--profile", "--output", str(mine / "tiny.yaml"))[0] == 0
    assert yaml.safe_load((mine / "tiny.yaml").read_text())["name"] == "tiny"
    code, out, _ = run(capsys, "inspect", "tiny", "--quantization", "F16", "--profiles", str(mine), "--json")
    assert code == 0
    assert json.loads(out)["n_embd"] == 256
    code, _, err = run(capsys, "inspect", "tiny")
    assert code == 2
    assert "no model called 'tiny'" in err
    assert run(capsys, "inspect", "tiny", "--profiles", str(tmp_path / "missing"))[0] == 1


def test_output_that_cannot_be_written(tmp_path, capsys):
    """A place that cannot be written is one line, not a traceback."""
    code, _, err = run(capsys, "inspect", "llama-3.1-8b", "--profile", "--output", str(tmp_path / "no" / "x.yaml"))
    assert code == 1
    assert err.startswith("vlplan: cannot write")


def test_profile_on_the_screen_loads(capsys):
    """Without --output the profile is the whole of stdout."""
    code, out, _ = run(capsys, "inspect", "llama-3.1-8b", "--profile")
    assert code == 0
    assert yaml.safe_load(out)["language"]["layers"] == 32
    model = models.load_model("llama-3.1-8b", None, "gguf")
    assert out == profile_yaml(model, checked=date.fromisoformat(str(yaml.safe_load(out)["checked"])))


def test_running_server_is_asked_only_with_the_word(monkeypatch, tmp_path, capsys):
    """--running adds what the server says about the tag; without it, and offline, the server is left alone."""
    store(tmp_path / "models", "tiny:1b", model=gguf_bytes(*tiny_llama()))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    ps = {"models": [{"name": "tiny:1b", "size": 500, "size_vram": 300, "context_length": 4096}]}
    files = {"/api/ps": json.dumps(ps).encode(), "/api/show": json.dumps({"parameters": "num_ctx 8192"}).encode()}
    with range_server(files=files) as served:
        monkeypatch.setenv("OLLAMA_HOST", served.base)
        assert run(capsys, "inspect", "ollama:tiny:1b")[0] == 0
        assert run(capsys, "inspect", "ollama:tiny:1b", "--running", "--offline")[0] == 1
        assert served.n_requests == 0
        code, out, _ = run(capsys, "inspect", "ollama:tiny:1b", "--running")
        assert code == 0
        assert "server: num_ctx 8192" in out
        assert "server: loaded with 500 bytes, 300 of them on GPUs, context 4096" in out
    code, _, err = run(capsys, "inspect", "llama-3.1-8b", "--running")
    assert code == 2
    assert "ollama:name:tag" in err
