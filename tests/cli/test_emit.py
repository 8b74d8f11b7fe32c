"""``--emit``: the plan as a compose file or a Kubernetes deployment."""

import contextlib
import io
import json

import jsonschema
import pytest
import yaml

from planner.api import schema
from planner.cli import main

BOX = ("--gpu", "RTX 3090:2", "--ram", "64GiB")
SERVED = {
    "vllm": ("qwen2.5-vl-7b", "--set", "tensor_parallel_size=2", "--set", "max_model_len=8192"),
    "sglang": ("qwen2.5-vl-7b", "--set", "tp_size=2"),
    "lmdeploy": ("internvl3-8b", "--set", "tp=2", "--set", "session_len=8192"),
    "ollama": ("qwen2.5-vl-7b", "--set", "num_ctx=8192"),
}


def run(*words):
    """Return exit code, stdout and stderr of the command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main(list(words))
    return stop.value.code, out.getvalue(), err.getvalue()


def emitted(question, engine, form):
    """Return the answer's manifest, parsed, after the answer kept to its schema."""
    code, out, _ = run(question, *SERVED[engine], "--engine", engine, *BOX, "--emit", form, "--json")
    answer = json.loads(out)
    jsonschema.Draft202012Validator(schema("answer")).validate(answer)
    assert code in (0, 4), answer["reasons"]
    return answer, yaml.safe_load(answer["manifest"])


@pytest.mark.parametrize("question", ["estimate", "recommend"])
@pytest.mark.parametrize("engine", SERVED)
def test_compose_files_parse(question, engine):
    """The compose file of a plan parses, holds the engine's version and reserves both GPUs."""
    answer, data = emitted(question, engine, "compose")
    (service,) = data["services"].values()
    assert answer["engine_version"] in service["image"]
    (reserved,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert reserved["device_ids"] == ["0", "1"]


@pytest.mark.parametrize("engine", SERVED)
def test_deployments_ask_for_the_memory_of_the_plan(engine):
    """A deployment parses and asks for no less host memory than the plan's bound."""
    answer, data = emitted("estimate", engine, "kubernetes")
    (container,) = data["spec"]["template"]["spec"]["containers"]
    asked = container["resources"]["requests"]
    assert asked == container["resources"]["limits"]
    assert asked["nvidia.com/gpu"] == "2"
    host = next(device for device in answer["devices"] if device["device"] == "Host")
    assert int(asked["memory"].removesuffix("Gi")) * 2**30 >= host["high_bytes"]


def test_the_settings_are_in_the_manifest():
    """What was planned is what the container runs with."""
    _, data = emitted("estimate", "vllm", "kubernetes")
    (container,) = data["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert words[words.index("--max-model-len") + 1] == "8192"


def test_a_modelfile_stands_above_the_manifest():
    """What Ollama keeps in a Modelfile is not lost: it is the comment above."""
    code, out, _ = run("estimate", *SERVED["ollama"], "--engine", "ollama", *BOX, "--emit", "compose")
    assert code == 0
    manifest = out[out.index("# create the model") :]
    assert "# PARAMETER num_ctx 8192" in manifest
    assert "ollama" in yaml.safe_load(manifest)["services"]


def test_engines_without_a_container_say_so():
    """One line names the engines that have one; nothing is printed that could be taken for a manifest."""
    code, out, err = run("estimate", "llava-1.6-7b", *BOX, "--emit", "compose")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "ollama, vllm, sglang, lmdeploy" in err


def test_what_does_not_fit_has_no_manifest():
    """A plan that does not fit is not deployed by mistake."""
    words = ("estimate", "qwen2.5-vl-7b", "--engine", "vllm", "--gpu", "8GiB", "--ram", "64GiB")
    code, out, _ = run(*words, "--emit", "kubernetes", "--json")
    assert code == 3
    assert json.loads(out)["manifest"] == ""
