"""The Python API and the JSON Schemas: one schema for requests and answers, in a library, a file and a batch."""

import json
import random
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

import planner
from planner.api import PREFERENCES, schema
from planner.catalog.engines import ENGINES, load_engine
from planner.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]
BOX = {"gpus": [{"name": "RTX 3090", "count": 2}], "ram": "64GiB"}
REQUESTS = {
    "llama.cpp": {
        "model": "qwen2.5-vl-7b",
        "quantization": "Q4_K_M",
        "workload": {"context": 8192, "images": ["1920x1080", "1024x768:2"]},
        "settings": {"n_gpu_layers": 20, "tensor_split": [3, 1], "flash_attn": "on"},
    },
    "ollama": {"model": "qwen2.5-vl-7b", "settings": {"num_ctx": 8192, "kv_cache_type": "q8_0"}},
    "transformers": {"model": "llava-1.6-7b", "workload": {"images": ["672x672"]}, "settings": {"dtype": "fp16"}},
    "vllm": {"model": "qwen2.5-vl-7b", "settings": {"tensor_parallel_size": 2, "max_model_len": 8192}},
    "sglang": {"model": "qwen2.5-vl-7b", "settings": {"tp_size": 2}},
    "lmdeploy": {"model": "internvl3-8b", "settings": {"tp": 2, "session_len": 8192}},
    "measured": {"model": "docs/examples/measured-vision-model.yaml", "settings": {"dtype": "fp16"}},
}


@pytest.fixture(scope="module")
def request_check():
    """Return a validator of requests."""
    jsonschema.Draft202012Validator.check_schema(schema("request"))
    return jsonschema.Draft202012Validator(schema("request"))


@pytest.fixture(scope="module")
def answer_check():
    """Return a validator of answers."""
    jsonschema.Draft202012Validator.check_schema(schema("answer"))
    return jsonschema.Draft202012Validator(schema("answer"))


def test_every_engine_has_a_request():
    """No engine is left out of the tests below."""
    assert set(REQUESTS) == set(ENGINES)


@pytest.mark.parametrize("engine", REQUESTS)
def test_estimates_keep_to_the_schemas(engine, request_check, answer_check, monkeypatch):
    """A request of each engine is valid, and so is its answer, which adds up."""
    monkeypatch.chdir(ROOT)
    request = {**REQUESTS[engine], "engine": engine, "machine": BOX}
    request_check.validate(request)
    answer = planner.estimate(request)
    answer_check.validate(answer)
    assert json.loads(json.dumps(answer)) == answer
    assert answer["engine"] == engine
    assert answer["simulated"]
    assert (not answer["speed"]) == (engine == "measured" or not answer["devices"])
    for device in answer["devices"]:
        assert device["expected_bytes"] == sum(item["expected_bytes"] for item in device["items"])


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm", "ollama"])
def test_recommendations_keep_to_the_schemas(engine, answer_check):
    """Recommended plans and their alternatives are answers of the same schema."""
    answer = planner.recommend({"model": "llama-3.2-11b-vision", "engine": engine}, machine=BOX)
    answer_check.validate(answer)


def test_a_named_machine_wins_over_the_argument():
    """What the request says counts; the argument stands in where it says nothing."""
    small = {"ram": "8GiB"}
    request = {"model": "llava-1.6-7b", "quantization": "Q4_K_M"}
    assert [d["device"] for d in planner.estimate(request, machine=small)["devices"]] == ["Host"]
    assert len(planner.estimate({**request, "machine": BOX}, machine=small)["devices"]) == 3


def test_estimate_is_what_the_batch_answers(answer_check):
    """The library and ``vlplan batch`` give the same answer to the same request."""
    from planner.cli.batch import answer_line

    request = {"model": "llava-1.6-7b", "quantization": "Q4_K_M", "machine": BOX}
    assert planner.estimate(request) == answer_line(json.dumps(request).encode(), None)
    answer_check.validate(answer_line(b"{", None))


WRONG = [
    {},
    {"model": "llava-1.6-7b", "modle": 1},
    {"model": 7},
    {"model": "llava-1.6-7b", "workload": {"context": 0}},
    {"model": "llava-1.6-7b", "workload": {"images": ["big"]}},
    {"model": "llava-1.6-7b", "settings": {"ctx": 4096}},
    {"model": "llava-1.6-7b", "engine": "vllm", "settings": {"ctx_size": 4096}},
    {"model": "llava-1.6-7b", "engine": "llama.cpp", "settings": {"flash_attn": "maybe"}},
    {"model": "llava-1.6-7b", "machine": {"gpus": [{"name": "RTX 3090", "count": 0}], "ram": "64GiB"}},
    {"model": "llava-1.6-7b", "machine": {"gpus": []}},
]


@pytest.mark.parametrize("request_", WRONG, ids=range(len(WRONG)))
def test_schema_and_program_refuse_the_same(request_, request_check):
    """What the schema refuses, the program refuses, in one line."""
    assert not request_check.is_valid(request_)
    with pytest.raises(planner.VlplanError) as caught:
        planner.estimate({**request_}, machine=BOX)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("request_", [[], "llava-1.6-7b", None])
def test_what_is_no_mapping_is_refused(request_):
    """A request that is no mapping is one clear line, for both questions."""
    for question in (planner.estimate, planner.recommend):
        with pytest.raises(UsageError, match="a request is a mapping"):
            question(request_, machine=BOX)


def test_unknown_words_are_refused():
    """A preference, a schema or an attribute that does not exist is named."""
    with pytest.raises(UsageError, match="prefer"):
        planner.recommend({"model": "llava-1.6-7b"}, prefer="cheap", machine=BOX)
    with pytest.raises(UsageError, match="machine"):
        planner.estimate({"model": "llava-1.6-7b"}, machine="RTX 3090")
    with pytest.raises(UsageError, match="schema"):
        schema("reply")
    with pytest.raises(AttributeError, match="no attribute"):
        planner.guess  # noqa: B018 - the access is the test


def test_preferences_are_those_of_the_command_line():
    """The library and ``--prefer`` know the same words."""
    from planner.cli.recommend import command

    option = next(option for option in command.params if option.name == "prefer")
    assert tuple(option.type.choices) == PREFERENCES


def test_importing_the_package_costs_nothing():
    """``import planner`` loads no module of the package, and neither YAML nor click."""
    code = "import planner, sys; print([m for m in sys.modules if m.startswith('planner.') or m in ('yaml', 'click')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_this_machine_is_looked_at_once(monkeypatch):
    """Without a machine the computer is looked at, once for all engines, and the answer is not marked simulated."""
    from dataclasses import replace

    from planner import api
    from planner.machine_file import machine_of

    looks = []

    def detect():
        looks.append(1)
        return replace(machine_of(BOX), simulated=False)

    monkeypatch.setattr(api, "detect_machine", detect)
    assert not planner.recommend({"model": "llama-3.2-11b-vision"})["simulated"]
    assert looks == [1]


def test_schema_files_are_what_the_records_say():
    """The shipped schemas are those that the script makes from the records the program reads requests with."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("build_schema", ROOT / "docs" / "build_schema.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.schema_texts().items():
        assert (ROOT / "profiles" / "schema" / name).read_text() == text


ANYTHING = (
    *(None, True, False, -3, 0, 1, 3, 512, 70000, 0.5, -1.5),
    *("", "on", "auto", "1920x1080", "24GiB", "f16", "fp32", "none"),
    *([], [1], [0.5, 3], [None], ["1x1"], [{}], [-1]),
    *({}, {"context": 1}, {"ram": "1GiB"}, {"gpus": []}, {"name": "T4"}, {"flash_attn": "on"}),
)


def paths(node, path=()):
    """Yield the place of every value in a request, and of one key too many in each mapping."""
    if isinstance(node, dict):
        yield (*path, "one too many")
        for key, value in node.items():
            yield (*path, key)
            yield from paths(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield (*path, index)
            yield from paths(value, (*path, index))


def changed(node, path, value):
    """Return a copy of ``node`` with ``value`` at ``path``."""
    if not path:
        return value
    first, *rest = path
    if isinstance(node, list):
        return [changed(old, rest, value) if i == first else old for i, old in enumerate(node)]
    return {**node, first: changed(node.get(first), rest, value)}


def readable_images(request):
    """Whether no image is a text without a size: that is looked at when the image is, and by the schema's pattern."""
    workload = request.get("workload")
    images = workload.get("images") if isinstance(workload, dict) else None
    return not isinstance(images, list) or all("x" in image for image in images if isinstance(image, str))


def accepted(request):
    """Whether the program reads the request's form: its own records, the engine's settings, the machine."""
    from planner.deployment.request import _Request, parse_settings
    from planner.machine_file import _Machine
    from planner.strict import read_record

    try:
        read = read_record(_Request, request)
        if read.engine in ENGINES:
            parse_settings(load_engine(read.engine), read.settings)
        if read.machine is not None:
            read_record(_Machine, read.machine)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("engine", REQUESTS)
def test_the_schema_accepts_what_the_program_reads(engine, request_check):
    """Whatever stands anywhere in a request, schema and program agree on its form.

    But for two things: image sizes are read later, and to JSON Schema 2.0 is an integer.
    """
    drawn = random.Random(engine)
    names = [field.name for field in fields(load_engine(engine).settings)]
    verdicts = []
    for _ in range(1000):
        request = {**REQUESTS[engine], "engine": engine, "machine": BOX}
        if drawn.random() < 0.5:
            request["settings"] = {**request["settings"], drawn.choice(names): drawn.choice(ANYTHING)}
        request = changed(request, drawn.choice(list(paths(request))), drawn.choice(ANYTHING))
        if readable_images(request):
            verdicts.append(accepted(request))
            assert request_check.is_valid(request) == verdicts[-1], request
    assert verdicts.count(True) > 20
    assert verdicts.count(False) > 20
