"""Gates: twenty real command lines and manifests judged rightly, and every output format read by its own parser."""

import json
from xml.etree import ElementTree as ET

import pytest

from planner import estimate
from planner.deployment.command_line import read_command_line
from planner.deployment.containers import read_started
from planner.deployment.documents import read_deployments
from planner.errors import SourceError, UsageError
from planner.machine_file import machine_of
from planner.questions.check import check_line
from planner.report.check import render

BOXES = {
    "8GiB": {"gpus": [{"total": "8GiB"}], "ram": "32GiB"},
    "24GiB": {"gpus": [{"total": "24GiB"}], "ram": "64GiB"},
    "3090": {"gpus": [{"name": "RTX 3090"}], "ram": "64GiB"},
    "2x3090": {"gpus": [{"name": "RTX 3090"}, {"name": "RTX 3090"}], "ram": "128GiB"},
    "80GiB": {"gpus": [{"name": "A100 80GB"}], "ram": "256GiB"},
    "cpu": {"gpus": [], "ram": "16GiB"},
}

VLLM_CONTAINER = (
    "docker run --rm -it --gpus all -v models:/models -p 8000:8000 --ipc=host vllm/vllm-openai:v0.33.0 "
    "--model Qwen/Qwen2.5-VL-7B-Instruct --max-model-len 8192"
)
SGLANG_CONTAINER = (
    "sudo docker run -d --gpus=all --shm-size 32g -e HF_TOKEN=x lmsysorg/sglang:latest "
    "python3 -m sglang.launch_server --model-path Qwen/Qwen2.5-VL-72B-Instruct"
)
LINES = [
    # llama.cpp
    ("llama-server -m llava-1.6-mistral-7b -c 4096 -ngl 99", "8GiB", "fits"),
    ("llama-server -m llava-1.6-mistral-7b -c 32768 -ngl 99 -np 1", "8GiB", "fits_with_changes"),
    ("llama-server -m qwen2.5-vl-72b -c 4096 -ngl 99 --fit off -np 1", "8GiB", "does_not_fit"),
    ("llama-server -m qwen2.5-vl-7b -fa off -ctv q4_0 -c 4096", "24GiB", "will_not_load"),
    ("./llama-mtmd-cli -m llava-1.5-7b --mmproj none -c 2048 -ngl 0", "cpu", "fits"),
    ("LLAMA_ARG_CTX_SIZE=8192 llama-server --model gemma-3-4b --n-gpu-layers all --parallel 2", "24GiB", "fits"),
    # Ollama
    ("ollama run llava:7b", "8GiB", "fits"),
    ("ollama run llama3.2-vision", "24GiB", "will_not_load"),
    ("OLLAMA_CONTEXT_LENGTH=8192 OLLAMA_KV_CACHE_TYPE=q8_0 ollama run qwen2.5vl:7b", "24GiB", "fits"),
    ("ollama run gemma3:4b --verbose", "cpu", "fits"),
    # vLLM
    ("vllm serve Qwen/Qwen2.5-VL-7B-Instruct --max-model-len 8192", "80GiB", "fits"),
    ("vllm serve Qwen/Qwen2.5-VL-7B-Instruct", "80GiB", "fits"),
    ("vllm serve Qwen/Qwen2.5-VL-7B-Instruct", "24GiB", "does_not_fit"),  # its own context is 128000 tokens
    ("vllm serve Qwen/Qwen2.5-VL-7B-Instruct --max-model-len 8192", "24GiB", "fits"),
    ("vllm serve meta-llama/Llama-3.2-11B-Vision-Instruct", "80GiB", "will_not_load"),
    ("vllm serve Qwen/Qwen2.5-VL-7B-Instruct --tensor-parallel-size 3", "2x3090", "will_not_load"),
    ("vllm serve Qwen/Qwen2.5-VL-7B-Instruct -tp 2 --max-model-len 8192", "2x3090", "fits"),
    ("python3 -m vllm.entrypoints.openai.api_server --model Qwen/Qwen2.5-VL-72B-Instruct", "3090", "does_not_fit"),
    # LMDeploy
    ("lmdeploy serve api_server OpenGVLab/InternVL3-8B --session-len 8192", "80GiB", "fits"),
    ("lmdeploy serve api_server OpenGVLab/InternVL3-8B --tp 2 --session-len 8192", "2x3090", "fits"),
    ("lmdeploy serve api_server Qwen/Qwen2.5-VL-72B-Instruct", "3090", "does_not_fit"),
    ("lmdeploy serve api_server Qwen/Qwen2.5-VL-7B-Instruct --cache-max-entry-count 0.5", "80GiB", "fits"),
    # SGLang
    ("python3 -m sglang.launch_server --model-path Qwen/Qwen2.5-VL-7B-Instruct --context-length 8192", "80GiB", "fits"),
    ("sglang serve --model-path Qwen/Qwen2.5-VL-7B-Instruct --tp 2 --context-length 8192", "2x3090", "fits"),
    ("python -m sglang.launch_server --model Qwen/Qwen2.5-VL-72B-Instruct --tp-size 2", "2x3090", "does_not_fit"),
    # containers
    (VLLM_CONTAINER, "80GiB", "fits"),
    (SGLANG_CONTAINER, "3090", "does_not_fit"),
    ("podman run --device nvidia.com/gpu=all ghcr.io/ggml-org/llama.cpp:server-cuda -m llava-1.5-7b", "24GiB", "fits"),
]


def checked(words, box):
    """Return the verdict on a command line on one of the boxes."""
    line = read_started(words.split(), {})
    return check_line(words, line, machine=machine_of(BOXES[box]), detect=None)


@pytest.mark.parametrize(("words", "box", "verdict"), LINES)
def test_command_lines_are_judged(words, box, verdict):
    """The verdict on a real command line is the one its figures call for."""
    check = checked(words, box)
    assert check.plan.verdict == verdict, check.plan.reasons


COMPOSE = """
services:
  web:
    image: nginx
  vlm:
    image: vllm/vllm-openai:v0.33.0
    command: --model Qwen/Qwen2.5-VL-7B-Instruct --max-model-len 8192
  llama:
    image: ghcr.io/ggml-org/llama.cpp:server-cuda
    command: ["-m", "llava-1.6-mistral-7b", "-c", "4096", "-ngl", "99"]
"""
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: vlm}
spec:
  template:
    spec:
      containers:
        - name: server
          image: openmmlab/lmdeploy:v0.18.0
          command: ["lmdeploy", "serve", "api_server", "OpenGVLab/InternVL3-8B"]
          args: ["--session-len", "8192"]
          env: [{name: HF_HOME, value: /models}]
---
apiVersion: v1
kind: Service
metadata: {name: vlm}
"""
MODELFILE = '''FROM llava:7b
# a comment
PARAMETER num_ctx 4096
PARAMETER temperature 0.2
SYSTEM """
FROM nothing
"""
'''
REQUESTS = """
requests:
  - {model: llava-1.6-mistral-7b, workload: {context: 4096}}
  - {model: gemma-3-4b, settings: {ctx_size: 8192, n_gpu_layers: -1}}
"""


@pytest.mark.parametrize(
    ("name", "text", "verdicts"),
    [
        ("compose.yaml", COMPOSE, ["fits", "fits"]),
        ("deployment.yaml", MANIFEST, ["fits"]),
        ("Modelfile", MODELFILE, ["fits"]),
        ("requests.yaml", REQUESTS, ["fits", "fits"]),
        ("request.json", '{"model": "llava-1.5-7b"}', ["fits"]),
    ],
)
def test_files_are_judged(tmp_path, name, text, verdicts):
    """Compose files, manifests, Modelfiles and request files give one verdict per deployment in them."""
    path = tmp_path / name
    path.write_text(text)
    found = [
        check_line(one.name, one.line, machine=machine_of(BOXES["80GiB"]), detect=None).plan.verdict
        for one in read_deployments(str(path))
    ]
    assert found == verdicts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no deployment"),
        ("just: text", "no deployment"),
        ("services: {a: {command: 'vllm serve'}}", "names no model"),
        ("services: {a: {command: 'llama-server -m x -c many'}}", "whole number"),
        ('services: {a: {command: "llama-server -m \'x"}}', "quotation"),
        ("a: [1, 2", "line"),
        ("*a", "alias"),
        ("[" * 5000, "deeper"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, text, said):
    """A file that holds nothing to judge, or is damaged, is refused in one line."""
    path = tmp_path / "deployment.yaml"
    path.write_text(text)
    with pytest.raises((SourceError, UsageError), match=said) as caught:
        read_deployments(str(path))
    assert "\n" not in str(caught.value)
    assert "unicode string" not in str(caught.value)  # what the parser calls a text that came from no file


def test_what_is_wrong_in_a_request_is_said_with_its_file(tmp_path):
    """A key that nobody knows is named with the file it stands in."""
    path = tmp_path / "deployment.yaml"
    path.write_text("{model: qwen2.5-vl-7b, colour: red}")
    (one,) = read_deployments(str(path))
    with pytest.raises(UsageError, match=r"deployment\.yaml: request: colour: unknown key"):
        check_line(one.name, one.line, machine=machine_of(BOXES["80GiB"]), detect=None)


def test_warnings_name_what_does_nothing():
    """Options that do not exist, limits above the encoder's own, contexts above the trained one are warned of."""
    check = checked(
        "llama-server -m qwen2.5-vl-7b -np 1 -c 200000 --image-max-tokens 9999 --gpu-split 7,7 -ncmoe 3", "80GiB"
    )
    said = " ".join(check.warnings)
    for words in ("--gpu-split", "above the 128000 tokens", "above the encoder's own maximum", "no experts"):
        assert words in said


def test_flags_that_do_not_exist_are_said_to():
    """Flags of old articles are named as doing nothing."""
    line = read_command_line(["ollama", "run", "--num-gpu", "2", "llava:7b"])
    assert any("--num-gpu" in remark for remark in line.remarks)


@pytest.fixture(scope="module")
def some_checks():
    """Return a check that fits, one that fits with changes, one that does not fit and one that will not load."""
    chosen = [LINES[0], LINES[1], LINES[2], LINES[3]]
    return [checked(words, box) for words, box, _ in chosen]


def test_junit_is_xml(some_checks):
    """JUnit output parses, with one case per deployment and a failure for each that cannot run."""
    suite = ET.fromstring(render(some_checks, "junit"))  # noqa: S314 - our own output
    assert suite.get("tests") == "4"
    assert suite.get("failures") == "2"
    assert len(suite.findall("testcase/failure")) == 2


def test_github_annotations_are_single_lines(some_checks):
    """Each annotation is one workflow command of the right level."""
    lines = render(some_checks, "github").splitlines()
    levels = [line.split()[0] for line in lines]
    assert levels[0] == "::notice"
    assert levels.count("::error") == 2
    assert all(line.startswith("::") for line in lines)


def test_sarif_names_its_rules(some_checks):
    """SARIF 2.1.0: every result names a rule that the driver lists."""
    log = json.loads(render(some_checks, "sarif"))
    run = log["runs"][0]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert log["version"] == "2.1.0"
    assert {result["ruleId"] for result in run["results"]} <= rules
    assert len(run["results"]) >= 3


def test_json_holds_the_answers(some_checks):
    """JSON output carries the whole answer of each deployment."""
    found = json.loads(render(some_checks, "json"))
    assert [check["answer"]["verdict"] for check in found["checks"]] == [
        "fits",
        "fits_with_changes",
        "does_not_fit",
        "will_not_load",
    ]


@pytest.mark.parametrize(
    ("backend", "version", "verdict"),
    [("turbomind", None, "will_not_load"), ("auto", None, "unknown"), ("turbomind", "0.13.0", "fits")],
)
def test_an_engine_part_named_by_the_user_is_judged_by_itself(backend, version, verdict):
    """MiniCPM-Llama3-V-2.5 left TurboMind after 0.13; whether the PyTorch engine loads it is not established."""
    words = {"model": "minicpm-llama3-v-2.5", "engine": "lmdeploy", "settings": {"backend": backend, "tp": 2}}
    machine = {"gpus": [{"total": "80GiB"}, {"total": "80GiB"}], "ram": "64GiB"}
    found = estimate({**words, "machine": machine} | ({"engine_version": version} if version else {}))
    assert found["verdict"] == verdict
    assert verdict != "will_not_load" or any("TurboMind" in reason for reason in found["reasons"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("docker run --rm -it", "no image"),
        ("docker run -v a:b postgres:17", "starts no engine"),
        ("docker run -e A=b vllm/vllm-openai:v0.33.0", "names no model"),
    ],
)
def test_containers_that_serve_nothing_are_said(words, said):
    """A container without image, engine or model is refused in one line."""
    with pytest.raises(UsageError, match=said):
        read_started(words.split(), {})


def test_a_container_hands_its_variables_on():
    """What ``-e`` sets is what the engine reads."""
    line = read_started(
        ["docker", "run", "-e", "OLLAMA_CONTEXT_LENGTH=8192", "ollama/ollama", "ollama", "run", "llava:7b"], {}
    )
    assert line.request["settings"] == {"num_ctx": 8192}
