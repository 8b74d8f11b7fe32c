"""What a command imports and reads: only what it needs. Counts and names, no clocks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BOX = ["--gpu", "RTX 3070", "--ram", "32GiB"]
NETWORK = ["http.client", "ssl", "email", "urllib.request", "socket", "planner.sources.network"]
SPARED = [*NETWORK, "pydantic", "importlib.metadata", "tabulate", "difflib", "planner.sources.reading"]

PROBE = """
import json, sys
import planner.cli
words = json.loads(sys.argv[1])
read = []
if words[0] != "--help":
    import planner.catalog.data as data
    parse = data.parse_yaml
    def counting(text, name):
        read.append(name)
        return parse(text, name)
    data.parse_yaml = counting
try:
    planner.cli.main(words)
except SystemExit as end:
    print(json.dumps({"code": end.code, "modules": sorted(sys.modules), "read": read}))
"""


def started(*words: str) -> dict[str, list[str]]:
    """Return the modules that a command has imported when it ends, and the data files it has parsed."""
    done = subprocess.run([sys.executable, "-c", PROBE, json.dumps(words)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] in (0, 3, 4), done.stderr
    return found


def test_help_imports_no_command():
    """The overview needs click and the table of commands, nothing of the planner."""
    modules = started("--help")["modules"]
    assert [name for name in modules if name.startswith("planner")] == ["planner", "planner.cli", "planner.errors"]
    assert len(modules) < 200


@pytest.mark.parametrize("words", [("recommend", "llava-1.6-7b", *BOX), ("limits", "llava-1.6-7b", *BOX)])
def test_a_question_about_a_profile_needs_no_network_and_no_reader(words: tuple[str, ...]):
    """A model of the catalogue on a described machine is answered without the network, readers and validation."""
    modules = started(*words)["modules"]
    assert sorted(set(SPARED) & set(modules)) == []
    assert [name for name in modules if name.startswith(("planner.engines.vllm", "planner.engines.transformers"))] == []
    assert len(modules) < 300


def test_only_the_files_asked_for_are_parsed():
    """Of the models one profile is parsed, of the support tables llama.cpp's, of the cards a few; no file twice."""
    read = started("recommend", "llava-1.6-7b", *BOX)["read"]
    assert [name for name in read if name.startswith("profiles/models/")] == [
        "profiles/models/llava-1.6-vicuna-7b.yaml"
    ]
    assert [name for name in read if "/support/" in name] == ["profiles/engines/support/llama.cpp.yaml"]
    files = [name for name in read if name != "profiles/gpus"]
    assert len(read) - len(files) < 6
    assert len(files) == len(set(files)) < 13
