"""The command line as a user meets it: what it prints, and the exit code."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

from planner.cli import app, main
from planner.cli.options import write_file
from planner.errors import SourceError


def run(*words, stdin=b""):
    """Run the command in this process and return (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    replaced = io.TextIOWrapper(io.BytesIO(stdin))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch("sys.stdin", replaced):
        try:
            main(list(words))
            code = 0
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def test_help_names_every_command():
    """The overview lists all commands without importing any of them."""
    code, out, _ = run("--help")
    assert code == 0
    for name in app.list_commands(None):
        assert name in out


@pytest.mark.parametrize("name", app.list_commands(None))
def test_every_command_explains_itself(name):
    """Each command has a help text of its own."""
    code, out, _ = run(name, "--help")
    assert code == 0
    assert out.startswith("Usage: vlplan")


BOX = ("--gpu", "24GiB", "--ram", "64GiB")


def test_the_two_gpu_case():
    """QwQ-32B Q4_K_M over two GPUs: 65 places, about 9 GB of weights each, 417.66 MiB of embedding on the host."""
    code, out, _ = run(
        "estimate", "qwq-32b", "--quantization", "Q4_K_M", "--gpu", "24GiB:2", "--ram", "64GiB", "--json"
    )
    answer = json.loads(out)
    assert code == 0
    first, second, host = answer["devices"]
    weights = [sum(i["expected_bytes"] for i in d["items"] if i["component"] == "weights") for d in answer["devices"]]
    assert first["layers"] == [0, 32]
    assert second["layers"] == [33, 63]
    assert second["has_output"]
    assert not host["has_output"]
    assert all(8.5 * 2**30 < n < 9.5 * 2**30 for n in weights[:2])
    assert round(weights[2] / 2**20, 2) == 417.66
    assert "-ngl 65" in answer["command"]


def test_items_sum_to_their_device():
    """The leaves of the answer sum to each device's totals."""
    _, out, _ = run("estimate", "qwen2.5-vl-7b", *BOX, "--context", "8192", "--image", "1920x1080", "--json")
    for device in json.loads(out)["devices"]:
        assert device["expected_bytes"] == sum(item["expected_bytes"] for item in device["items"])
        assert device["headroom_bytes"] == device["free_bytes"] - device["high_bytes"]


def test_explain_sums_up():
    """--explain shows formula, numbers and source of every item, and the device's total."""
    code, out, _ = run("estimate", "llava-1.6-mistral-7b", *BOX, "--explain")
    assert code == 0
    assert "CUDA0 total:" in out
    assert out.count("source:") >= 5


def test_a_described_machine_is_marked():
    """What was not detected says so."""
    _, out, _ = run("recommend", "llava-1.6-7b", *BOX)
    assert "SIMULATED" in out


def test_screens_stay_within_eighty_columns():
    """Apart from commands to paste, no line is wider than 80 columns."""
    _, out, _ = run("recommend", "qwen2.5-vl-7b", *BOX, "--image", "1920x1080")
    text, _, _ = out.partition("\nRun:")
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("estimate", "no-such-model"), 2, "no-such-model"),
        (("estimate", "qwen2.5-vl-7"), 2, "qwen2.5-vl-7b"),
        (("estimate", "qwen2.5-vl-7b", "--engine", "vllmm"), 2, "vllmm"),
        (("estimate", "qwen2.5-vl-7b", "--set", "ctx_size=0"), 2, "ctx_size"),
        (("estimate", "qwen2.5-vl-7b", "--set", "nonsense=1"), 2, "nonsense"),
        (("estimate", "qwen2.5-vl-7b", "--set", "tensor_split=[1,2,3]"), 2, "tensor_split"),
        (("estimate", "qwen2.5-vl-7b", "--set", 'override_tensor=["(=CPU"]'), 2, "regular expression"),
        (("estimate", "qwen2.5-vl-7b", "--set", "ubatch_size=many"), 2, "ubatch_size"),
        (("estimate", "qwen2.5-vl-7b", "--image", "0x100"), 2, "0x100"),
        (("estimate", "qwen2.5-vl-7b", "--image", "big"), 2, "big"),
        (("estimate", "qwen2.5-vl-7b", "--image", "100x100:0"), 2, "count"),
        (("estimate", "qwen2.5-vl-7b", "--quantization", "Q9_9"), 2, "Q9_9"),
        (("estimate", "/nonexistent/model.gguf"), 1, "nonexistent"),
        (("estimate", "/"), 1, "/"),
        (("estimate", "qwen2.5-vl-7b", "--context", "4096", "--set", "ctx_size=1000"), 2, "leave one sequence 1000"),
        (("estimate", "qwen2.5-vl-7b", "--context", "2048", "--set", "ctx_size=4096", "--sequences", "4"), 2, "1024"),
        (("estimate", "qwen2.5-vl-7b", "--sequences", "8", "--set", "parallel=4"), 2, "settings.parallel lets 4"),
        (("recommend", "llava", "--gpu", "M3 Max 36GB", "--ram", "64GiB"), 2, "leave one of them out"),
        (("recommend", "llava", "--gpu", "cpu"), 2, "--ram alone"),
        (("recommend", "--gpu", "24GiB", "--ram", "64GiB", "--compare"), 2, "--compare says something about one model"),
        (("recommend", "--gpu", "24GiB", "--ram", "64GiB", "--set", "ctx_size=1"), 2, "--set says something"),
        (("tokens", "qwen2.5-vl-7b", "--engine", "vllm", "--image-max-tokens", "10"), 2, "llama.cpp's"),
        (("tokens", "qwen2.5-vl-7b", "--image-max-tokens", "0"), 2, "--image-max-tokens"),
        (("batch", "/nonexistent.jsonl"), 2, "nonexistent"),
        (("check",), 2, "nothing to check"),
        (("check", "--", "frobnicate", "-m", "x"), 2, "frobnicate"),
        (("check", "missing.yaml"), 2, "missing.yaml"),
        (("frobnicate",), 2, "frobnicate"),
        ((), 2, ""),
    ],
)
def test_bad_input_is_one_line_and_the_right_code(words, code, said):
    """A wrong request is answered with one clear line on stderr, never a traceback."""
    options = BOX if words and words[0] in ("estimate", "check") and len(words) > 1 and "--" not in words else ()
    got, out, err = run(*words[:1], *options, *words[1:]) if "--" not in words else run(*words)
    assert got == code
    assert said in err
    assert "Traceback" not in err + out
    if words:
        assert len(err.strip().splitlines()) == 1


def test_unknown_gpu_offers_the_nearest():
    """A GPU that is not known names those that are close."""
    code, _, err = run("recommend", "llava-1.6-7b", "--gpu", "RTX 30700")
    assert code == 2
    assert "3070" in err


def test_what_does_not_fit_exits_three():
    """A model far above the machine exits with 3 and says by how much each device is short."""
    code, out, _ = run("estimate", "qwen2.5-vl-72b", "--gpu", "8GiB", "--ram", "8GiB")
    assert code == 3
    assert "short" in out


def test_quantised_values_need_flash_attention():
    """The engine refuses a quantised V cache without flash attention, and so does the plan."""
    code, out, _ = run("estimate", "qwen2.5-vl-7b", *BOX, "--set", "cache_type_v=q4_0", "--set", "flash_attn=off")
    assert code == 3
    assert "flash attention" in out


def test_images_that_exceed_the_context_are_refused_with_figures():
    """Images that cannot fit the context are said to, with both figures."""
    code, out, _ = run("estimate", "qwen2.5-vl-7b", *BOX, "--image", "3200x2400:3", "--context", "4096")
    assert code == 3
    assert "12051" in out
    assert "4096" in out


@pytest.mark.parametrize("words", [("--gpu", "16GiB"), ("--gpu", "24GiB"), ("--gpu", "24GiB", "--engine", "ollama")])
def test_a_model_is_recommended_in_a_file_type_it_is_to_be_had_in(words):
    """What is published in MXFP4 alone is neither inflated to 8 bits nor pressed into another type."""
    code, out, _ = run("recommend", "gpt-oss-20b", *words, "--ram", "32GiB")
    assert code == 0
    assert out.startswith("FITS: gpt-oss-20b MXFP4_MOE")
    _, out, _ = run("recommend", *words[:2], "--ram", "32GiB")
    assert "gpt-oss-20b" not in out or "MXFP4_MOE" in out


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_checkpoint_that_is_published_packed_is_planned_packed(engine):
    """gpt-oss-20b is 13.8 GB of MXFP4 on the hub and fits 24 GB; only who asks for 16 bits gets 42 GB."""
    code, out, _ = run("estimate", "gpt-oss-20b", "--engine", engine, "--gpu", "RTX 4090", "--ram", "64GiB", "--json")
    found = json.loads(out)
    weights = sum(i["expected_bytes"] for i in found["devices"][0]["items"] if i["component"] == "weights")
    assert (code, found["quantization"]) == (0, "mxfp4")
    assert 13.7e9 < weights < 14.7e9
    assert "in place of" not in " ".join(found["reasons"])
    asked = ("--engine", engine, "--gpu", "RTX 4090", "--ram", "64GiB", "--quantization", "bf16")
    assert run("estimate", "gpt-oss-20b", *asked)[0] == 3


def test_a_prompt_that_was_asked_for_must_fit_the_context():
    """A prompt beyond the context is no plan that fits; the usual prompt, which nobody asked for, is no demand."""
    code, out, _ = run("estimate", "qwen2.5-vl-7b", *BOX, "--prompt-tokens", "6000")
    assert code == 3
    assert "The prompt is 6000 tokens, the context is 4096: ask for at least 6512" in " ".join(out.split())
    asked = ("--image", "1920x1080", "--prompt-tokens", "2000")
    assert run("estimate", "qwen2.5-vl-7b", *BOX, *asked)[0] == 3
    assert run("estimate", "qwen2.5-vl-7b", *BOX, *asked, "--context", "8192")[0] == 0
    assert run("estimate", "qwen2.5-vl-7b", *BOX, "--context", "256")[0] == 0


def test_sequences_share_a_context_that_is_given_in_all():
    """``-c`` is the total: four sequences of 4096 tokens have 1024 each, and the plan says so."""
    code, out, _ = run("estimate", "qwen2.5-vl-7b", *BOX, "--set", "ctx_size=4096", "--sequences", "4")
    assert code == 0
    assert "context 1024 x 4 sequences" in out


def test_a_file_is_written_whole_and_nothing_else_is_replaced(tmp_path):
    """A link and the permissions of an old file stay, a pipe is written to, and no scrap is left behind."""
    (tmp_path / "page.md").write_text("old")
    (tmp_path / "page.md").chmod(0o640)
    (tmp_path / "link.md").symlink_to("page.md")
    write_file(str(tmp_path / "link.md"), "new")
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "page.md").read_text() == "new"
    assert (tmp_path / "page.md").stat().st_mode & 0o777 == 0o640
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_file(str(tmp_path / "pipe"), "through")
    reader.join(10)
    assert read == ["through"]
    with pytest.raises(SourceError, match="cannot write"):
        write_file(str(tmp_path), "a folder")
    assert {file.name for file in tmp_path.iterdir()} == {"page.md", "link.md", "pipe"}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full")
@pytest.mark.parametrize("words", [("profiles",), ("batch", "-"), ("profiles", "--json")])
def test_a_full_disk_is_one_line(words):
    """Where the answer cannot be written the exit code is 1 and one line says why."""
    command = [sys.executable, "-c", f"from planner.cli import main; main({list(words)!r})"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, input=b"not json\n", stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_models_that_share_a_box_are_one_document_and_the_worst_verdict_counts():
    """With --also JSON is one list, and what does not fit outweighs what fits with changes."""
    box = ("--gpu", "24GiB", "--ram", "16GiB")
    code, out, _ = run("recommend", "llava", "--also", "llama-3.1-70b", *box, "--json")
    assert code == 3
    assert [one["verdict"] for one in json.loads(out)] == ["fits", "does_not_fit"]
    changed = ("recommend", "llava", "--sequences", "60000", "--also", "llama-3.1-70b", *box)
    assert run(*changed)[0] == 3


def test_batch_answers_in_order_and_in_place():
    """One answer per line, a bad line answered in its place, exit code 1."""
    good = {"model": "llava-1.6-mistral-7b", "machine": {"gpus": [{"total": "24GiB"}], "ram": "32GiB"}}
    lines = [json.dumps(good), "not json", "", json.dumps({**good, "unknown": 1}), json.dumps(good)]
    code, out, _ = run("batch", stdin="\n".join(lines).encode())
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert ["error" in answer for answer in answers] == [False, True, True, False]
    assert answers[0] == answers[3]
    assert "unknown" in answers[2]["error"]


def test_a_long_batch_is_answered_as_a_short_one(monkeypatch: pytest.MonkeyPatch):
    """By several processes: the same answers, in order, bad lines in their place."""
    monkeypatch.setattr("planner.cli.processes.usable_threads", lambda _: 2)
    asked = {"model": "llava-1.6-mistral-7b", "machine": {"gpus": [{"total": "24GiB"}], "ram": "32GiB"}}
    lines = [json.dumps({**asked, "workload": {"context": 2048 + 256 * (i % 30)}}) for i in range(120)]
    lines[70] = "not json"
    code, out, err = run("batch", stdin="\n".join(lines).encode())
    answers = out.splitlines()
    assert (code, err, len(answers)) == (1, "", 120)
    assert [i for i, answer in enumerate(answers) if "error" in json.loads(answer)] == [70]
    for i in (0, 49, 50, 100, 119):
        assert run("batch", stdin=lines[i].encode())[1] == answers[i] + "\n"


def test_tokens_are_counted_by_the_models_processor_where_llama_cpp_has_no_rule():
    """The first trouble needs no engine named; an engine asked for is not replaced."""
    code, out, _ = run("tokens", "llama3.2-vision", "--image", "3200x2400")
    assert code == 0
    assert "on transformers" in out
    assert "1120x840" in out
    code, _, err = run("tokens", "llama3.2-vision", "--image", "3200x2400", "--engine", "llama.cpp")
    assert code == 2
    assert "no rule" in err
    assert "on llama.cpp" in run("tokens", "llava-1.5-7b", "--image", "336x336")[1]


def test_a_setting_may_be_written_as_the_engine_writes_a_list():
    """``tensor_split=3,1`` is the list [3, 1]."""
    words = ("estimate", "qwen2.5-vl-7b", "--gpu", "24GiB:2", "--ram", "64GiB", "--json")
    by_commas = run(*words, "--set", "tensor_split=3,1")
    assert by_commas == run(*words, "--set", "tensor_split=[3, 1]")
    assert json.loads(by_commas[1])["settings"]["tensor_split"] == [3, 1]


@pytest.mark.parametrize("words", [("recommend",), ("limits",), ("estimate",)])
@pytest.mark.parametrize("engine", ["llama.cpp", "ollama", "vllm", "lmdeploy"])
def test_the_verdict_comes_before_any_question_about_images(words, engine):
    """An engine that does not load the model says so, whatever is asked of its images; exit code 3."""
    code, out, err = run(*words, "llama3.2-vision", "--engine", engine, "--image", "3200x2400", *BOX)
    assert (code, err) == (3, "")
    assert out.startswith("WILL NOT LOAD")
    assert "Instead:" in out


def test_the_first_trouble_without_an_engine_is_planned_on_one_that_loads_it():
    """Nothing is refused because the first engine in the row has no rule for the pictures."""
    code, out, _ = run("recommend", "llama3.2-vision", "--image", "3200x2400", *BOX)
    assert code == 0
    assert "6404 cross-attention tokens" in out
