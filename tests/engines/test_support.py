"""Will it load: the dated tables and what is read from them."""

from pathlib import Path

import pytest
import yaml

from planner.engines.support import TITLES, loads, sentence, support_table
from planner.engines.versions import parse_version
from planner.errors import UsageError

FOLDER = Path(__file__).parents[2] / "profiles" / "engines" / "support"
TABLES = {path.stem: support_table(yaml.safe_load(path.read_text())) for path in sorted(FOLDER.glob("*.yaml"))}

# engine, family, version, verdict
VERDICTS = [
    ("ollama", "llama-3.2-vision", "0.30.0", "unsupported"),
    ("ollama", "llama-3.2-vision", "0.30.0-rc1", "unsupported"),
    ("ollama", "llama-3.2-vision", "v0.34.1", "unsupported"),
    ("ollama", "llama-3.2-vision", None, "unsupported"),
    ("ollama", "llama-3.2-vision", "0.24", "supported"),
    ("ollama", "llama-3.2-vision", "0.4.0", "supported"),
    ("ollama", "llama-3.2-vision", "0.3.14", "unsupported"),
    ("ollama", "llama-3.2-vision", "0.25.0", "unknown"),
    ("llama.cpp", "llama-3.2-vision", "0.5", "unsupported"),
    ("llama.cpp", "llama-3.2-vision", "b6628", "unsupported"),
    ("vllm", "llama-3.2-vision", "0.10.2", "supported"),
    ("vllm", "llama-3.2-vision", "0.11.0", "unsupported"),
    ("vllm", "llama-3.2-vision", "0.33.0", "unsupported"),
    ("sglang", "llama-3.2-vision", "0.5.23", "supported"),
    ("transformers", "llama-3.2-vision", "5.23.0", "supported"),
    ("lmdeploy", "llama-3.2-vision", "0.11.1", "supported"),
    ("lmdeploy", "llama-3.2-vision", "0.12.0", "unsupported"),
    ("lmdeploy", "llama-3.2-vision", "0.18.0", "unsupported"),
    ("lmdeploy", "minicpm-llama3-v-2.5", "0.13.0", "supported"),
    ("lmdeploy-turbomind", "minicpm-llama3-v-2.5", "0.14.0", "unsupported"),
    ("lmdeploy", "minicpm-llama3-v-2.5", "0.14.0", "unknown"),
    ("lmdeploy", "qwen3-vl", "0.11.0", "supported"),
    ("lmdeploy", "qwen3-vl", "0.10.0", "unsupported"),
    ("llama.cpp", "qwen3-vl", "b6751", "unsupported"),
    ("llama.cpp", "qwen3-vl", "b6886", "unknown"),
    ("llama.cpp", "qwen3-vl", "b6887", "supported"),
    ("llama.cpp", "qwen3-vl", "0.5.0", "supported"),
    ("llama.cpp", "gemma-3", "b5000", "unknown"),
    ("vllm", "qwen2.5-vl", "0.7.1", "unsupported"),
    ("vllm", "qwen2.5-vl", "0.7.2.post1", "supported"),
    ("vllm", "minicpm-v-4.5", "0.10.1", "unsupported"),
    ("transformers", "minicpm-v-2.6", "4.57.3", "remote_code"),
    ("transformers", "minicpm-v-2.6", "5.0.0", "unsupported"),
    ("transformers", "minicpm-v-2.6", None, "remote_code"),
    ("vllm", "a-family-nobody-has", "0.33.0", "unknown"),
]


@pytest.mark.parametrize(("engine", "family", "version", "verdict"), VERDICTS)
def test_verdicts(engine, family, version, verdict):
    """The rows that decide downloads, at the releases where they change."""
    assert loads(TABLES, engine, family=family, version=version).verdict == verdict


def test_refusal_names_the_way_out():
    """A model that will not load comes with what would load it, in one sentence."""
    refused = loads(TABLES, "ollama", family="llama-3.2-vision", version="0.30.0")
    assert refused.alternatives == ("Ollama <= 0.24", "SGLang", "transformers")
    assert sentence(refused).endswith("; use Ollama <= 0.24, SGLang or transformers")
    assert refused.until == "0.24.0"
    assert "2026-11-20" in refused.checked


def test_backend_is_named():
    """LMDeploy takes TurboMind where that has the family and its PyTorch engine elsewhere."""
    assert loads(TABLES, "lmdeploy", family="qwen2.5-vl").backend == "lmdeploy-turbomind"
    assert loads(TABLES, "lmdeploy", family="qwen3-vl").backend == "lmdeploy-pytorch"


@pytest.mark.parametrize(
    ("engine", "architecture_class", "gguf", "version", "verdict"),
    [
        ("vllm", "MllamaForConditionalGeneration", None, "0.11.0", "unsupported"),
        ("transformers", "MllamaForConditionalGeneration", None, "5.0.0", "supported"),
        ("ollama", None, "mllama", "0.30.1", "unsupported"),
        ("llama.cpp", None, "mllama", None, "unsupported"),
        ("llama.cpp", None, "qwen3vl", "0.5", "supported"),
        ("llama.cpp", None, "llama", None, "supported"),
        ("ollama", None, "llama", "0.5.0", "supported"),
        ("llama.cpp", None, "nobody", None, "unknown"),
        ("vllm", "MiniCPMV", None, "0.10.0", "unknown"),  # some versions of the class load, others do not
    ],
)
def test_without_a_family(engine, architecture_class, gguf, version, verdict):
    """A file or folder without a known family is looked up by its class or architecture word; doubt is unknown."""
    answer = loads(TABLES, engine, architecture_class=architecture_class, gguf_architecture=gguf, version=version)
    assert answer.verdict == verdict


@pytest.mark.parametrize("word", ["latest", "", "0..1", "b", "1.2.3.4.5.6", "0.1; rm", "9" * 4000, "0.10.x"])
def test_unknown_version_words(word):
    """A version that is none is the user's to mend."""
    with pytest.raises(UsageError, match="not an engine version"):
        loads(TABLES, "vllm", family="qwen2-vl", version=word)


def test_versions_are_ordered():
    """Release candidates come before their release, post releases after, missing numbers are zero."""
    words = [
        "0.9.2",
        "0.10.0",
        "0.10.2",
        "0.30.0.dev3",
        "0.30.0-rc1",
        "0.30.0rc2",
        "v0.30",
        "0.30.0.post1",
        "4.57",
        "4.57.1",
    ]
    versions = [parse_version(word) for word in words]
    assert versions == sorted(versions)
    assert parse_version("0.30") == parse_version("v0.30.0+cu128")
    assert parse_version("4.57.6").within(parse_version("4.57"))
    assert not parse_version("4.58").within(parse_version("4.57"))


def test_every_row_is_dated_and_sourced():
    """475 rows read from registries and 30 more; each table says what was read, the newest release and the day."""
    assert sum(len(table.rows) for table in TABLES.values()) == 475 + 30
    for table in TABLES.values():
        assert table.source
        assert table.checked
        parse_version(table.newest)
        for row in table.rows:
            for word in (row.since, row.absent, row.until, row.gone):
                if word:
                    parse_version(word.removeprefix("<="))


def test_every_row_agrees_with_itself():
    """At its own newest release a row gives its own verdict, and one release past ``until`` it never loads."""
    for engine, table in TABLES.items():
        for row in table.rows:
            assert loads(TABLES, engine, family=row.family).verdict == row.verdict, (engine, row.family)
            if row.gone:
                assert loads(TABLES, engine, family=row.family, version=row.gone).verdict == "unsupported"
            if row.until:
                assert loads(TABLES, engine, family=row.family, version=row.until).verdict in {
                    "supported",
                    "remote_code",
                }
    assert set(TABLES) - set(TITLES) == {"onnxruntime-genai", "optimum-onnx"}


@pytest.mark.parametrize("word", ["phi3", "deepseek2", "lfm2", "qwen2vl", "gemma3"])
def test_text_architectures_are_not_judged_by_their_vision_relatives(word):
    """A GGUF file is looked up by its own architecture, even where a vision family built on it does not load."""
    assert loads(TABLES, "llama.cpp", gguf_architecture=word).verdict == "supported"


def test_a_word_does_not_speak_against_a_projector():
    """A file called llama by its own header may hold LLaVA; a profile of the text family is text only."""
    assert loads(TABLES, "llama.cpp", family="llama", gguf_architecture="llama").vision
    assert not loads(TABLES, "vllm", family="llama").vision
