"""The catalogue of models: every profile is sound, every name finds one model, every count adds up."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
from gguf_headers import language_headers, projector_headers

from planner.catalog import find_model, list_profiles, load_data, load_model, model_names, parse_yaml
from planner.catalog.build import model_of
from planner.catalog.merging import merged, unfolded
from planner.catalog.profile import Profile
from planner.errors import SourceError, UsageError
from planner.model import Attention, CrossAttention, GatedDeltaNet, LatentAttention, ShortConv
from planner.quantization import tensor_bytes
from planner.quantization.file_types import known_file_type
from planner.strict import read_record
from planner.tensors import language_tensors, vision_tensors

DATA = Path(__file__).parent / "data"
PROFILES = Path(__file__).parents[1] / "profiles" / "models"

# Where the published count and the inventory of a GGUF file rightly differ: (language, tower and projector).
EXPLAINED = {
    "ernie-4.5-vl-28b-a3b": (6_799_199_616, 0),  # the 64 vision experts of 27 layers and their routers
    "gemma-3n-e2b": (-256 * 30 * 256, 0),  # GGUF files pad the per-layer embeddings to the whole vocabulary
    "gemma-3n-e4b": (-256 * 35 * 256, 0),  # same
    "gemma-4-26b-a4b": (-30, -2304),  # one scalar a layer; bias and scale of the tower's output
    "gemma-4-31b": (-60, -2304),  # same
    "gemma-4-e2b-av": (0, -307_183_904),  # the audio tower is counted apart
    "gemma-4-e4b-av": (0, -308_756_768),  # same
    "granite-vision-3.3-2b": (0, 15_238_352),  # the pooling head that no layer feeds
    "kimi-vl-a3b": (0, 1728),  # buffers
    "kimi-vl-a3b-thinking": (0, 1728),  # buffers
    "mistral-small-3.1-24b": (0, -5120),  # the row break's embedding, in GGUF files beside the tower
    "mistral-small-3.2-24b": (0, -5120),  # same
    "pixtral-12b": (0, -5120),  # same
    "devstral-small-2-24b": (0, -5120),  # same
    "ministral-3-3b": (0, -3072),  # same
    "ministral-3-8b": (0, -4096),  # same
    "ministral-3-14b": (0, -5120),  # same
    "mistral-medium-3.5-128b": (0, -12288),  # same
    "llama-3.2-11b-vision": (0, -1),  # one gate of the positions is stored twice
    "llama-3.2-90b-vision": (0, -1),  # same
    # the last block and the norm behind it, which LLaVA never uses and its GGUF files leave out
    "llava-1.5-7b": (0, 12_598_272),
    "llava-1.5-13b": (0, 12_598_272),
    "llava-1.6-vicuna-7b": (0, 12_598_272),
    "llava-1.6-vicuna-13b": (0, 12_598_272),
    "llava-1.6-mistral-7b": (0, 12_598_272),
    "llava-1.6-34b": (0, 12_598_272),
    "bakllava-7b": (0, 12_598_272),
    "llama3-llava-next-8b": (0, 12_598_272),
    # the resampler's position table, computed by the original code and stored by the converter: 4900 x width
    "minicpm-llama3-v-2.5": (0, -4900 * 4096),
    "minicpm-v-2.6": (0, -4900 * 3584),
    "minicpm-v-4": (0, -4900 * 2560),
    "minicpm-v-4.5": (0, -4900 * 4096),
}


@pytest.mark.parametrize("name", model_names())
def test_every_profile_is_sound(name):
    """A profile loads for both kinds of engine, bears its file's name, and says whence and when its figures are."""
    for engine in ("gguf", "hf"):
        profile = find_model(name, engine)
        assert profile.name == name
        assert len(profile.source) > 20
        assert profile.checked.year >= 2026
        model = load_model(name, "Q8_0", engine)
        assert model.name == name
        assert model.family
        assert len(model.language.layers) == profile.language.layers
    for kind in profile.quantizations:
        known_file_type(kind)


@pytest.mark.parametrize("name", model_names())
def test_the_inventory_sums_to_the_published_count(name):
    """Parameters of language model and vision part, counted tensor by tensor, are the published ones."""
    profile = find_model(name)
    if profile.parameters is None:
        pytest.skip("no published count is cited")
    model, counts = model_of(profile), profile.parameters
    language = sum(prod(shape) for tensor, shape in language_tensors(model.language) if not tensor.startswith("rope"))
    explained = EXPLAINED.get(name, (0, 0))
    assert counts.language - language == explained[0]
    projector = vision_tensors(model.vision, model.language.n_embd) if model.vision else ()
    if projector:
        stored = sum(tensor.n_elements for tensor in projector)
        assert counts.vision + counts.projector - stored == explained[1]
    assert counts.total == counts.language + counts.vision + counts.projector + counts.other
    assert (counts.linear or 0) < counts.total


def test_most_profiles_cite_a_count():
    """The check above is not empty: nearly all profiles have a count, and six of seven of those a published one."""
    profiles = list_profiles(unlisted=True)
    assert sum(profile.parameters is not None for profile in profiles) >= 0.95 * len(profiles)
    assert sum(profile.parameters is not None and not profile.parameters.counted for profile in profiles) >= 72
    assert len(profiles) >= 80


def test_other_settings_of_a_model_are_found_but_not_listed():
    """Variants that differ by a setting answer to their names and stay out of lists and recommendations."""
    names = {profile.name for profile in list_profiles()}
    hidden = set(model_names()) - names
    assert hidden == {
        "deepseek-v2-lite-nomla",
        "gemma-3-pas",
        "gemma-4-e2b-av",
        "gemma-4-e4b-av",
        "got-ocr2-crop",
        "phi-3.5-vision-4-crops",
        "qwen3.5-9b-mtp",
    }
    assert find_model("gemma-3-pas").language == find_model("gemma-3-4b").language


def test_no_name_means_two_models():
    """Names, aliases and Hub ids of different profiles never collide, save a variant that shares its base's Hub id."""
    owners: dict[str, str] = {}
    for profile in list_profiles(unlisted=True):
        for name in (profile.name, *profile.aliases):
            key = name.casefold()
            assert owners.setdefault(key, profile.name) == profile.name, name


@pytest.mark.parametrize("name", model_names())
def test_every_name_of_a_profile_finds_it(name):
    """A profile is found by its name, each alias, its Hub id with and without owner, in any case."""
    profile = find_model(name)
    known = [name, *profile.aliases]
    if profile.hf_id and "hf_id" in load_data(f"models/{name}.yaml"):
        known += [profile.hf_id, profile.hf_id.partition("/")[2]]
    for word in known:
        for spelled in (word, word.upper(), f" {word.lower()} ", word.replace("-", "_")):
            assert find_model(spelled).name == name, spelled


OLLAMA = {
    "llava:7b": "llava-1.6-mistral-7b",
    "llava": "llava-1.6-mistral-7b",
    "llava:13b": "llava-1.6-vicuna-13b",
    "llava:34b": "llava-1.6-34b",
    "llama3.2-vision": "llama-3.2-11b-vision",
    "llama3.2-vision:11b": "llama-3.2-11b-vision",
    "llama3.2-vision:90b": "llama-3.2-90b-vision",
    "qwen2.5vl:7b": "qwen2.5-vl-7b",
    "qwen3-vl:30b": "qwen3-vl-30b-a3b",
    "gemma3:12b": "gemma-3-12b",
    "minicpm-v": "minicpm-v-2.6",
    "mistral-small3.1": "mistral-small-3.1-24b",
    "moondream": "moondream2",
    "granite3.2-vision": "granite-vision-3.3-2b",
}


@pytest.mark.parametrize("tag", OLLAMA)
def test_ollama_tags(tag):
    """The tags of Ollama's library mean what that library ships under them."""
    assert find_model(tag).name == OLLAMA[tag]


def table_names() -> set[str]:
    """Return the names of models in the tables that accuracy is measured on."""
    names = {name.rsplit(".", 2)[0] for name in language_headers()}
    names |= {name.removeprefix("mmproj-").removesuffix(".gguf") for name in projector_headers()}
    with gzip.open(DATA / "measured_model_names.json.gz", "rt") as file:
        return names | set(json.load(file))


@pytest.mark.parametrize("name", sorted(table_names()))
def test_every_model_of_the_tables_is_found(name):
    """No row of the accuracy tables is lost for want of a name."""
    assert find_model(name).language.layers > 0


def test_an_unknown_name_is_answered_with_the_nearest():
    """A typing error gets a hint, nonsense the way to the list; both are the user's errors."""
    with pytest.raises(UsageError, match=r"qwen2\.5-vl-7b"):
        find_model("qwen2.5-vl7b")
    with pytest.raises(UsageError, match="vlplan profiles"):
        find_model("zzzzzzzzzzzz")
    with pytest.raises(UsageError, match="no recipe"):
        load_model("qwen2.5-vl-7b", "Q9_X")
    with pytest.raises(UsageError) as caught:
        find_model("none")
    assert "did you mean none" not in str(caught.value)  # no profile is called by what it has not


@pytest.mark.parametrize("name", ["qwen2.5vl:7b-q4_K_M", "Qwen2.5-VL-7B-Instruct-GGUF:Q4_K_M", "qwen2.5-vl-7b.q4_k_m"])
def test_a_file_type_in_the_name_is_shown_its_place(name):
    """Who writes the file type into a name is told the option it belongs in."""
    with pytest.raises(UsageError, match="with --quantization Q4_K_M"):
        find_model(name)


def test_gguf_files_follow_their_own_conventions():
    """A GGUF file keeps the original vocabulary where the converted checkpoint has a padded one."""
    assert load_model("llava-1.6-vicuna-7b", "F16").language.n_vocab == 32000
    assert load_model("llava-1.6-vicuna-7b", None, "hf").language.n_vocab == 32064
    assert load_model("llava-1.6-vicuna-7b", None, "hf").language.tensors == ()


def test_file_sizes_are_sums_of_aligned_tensors():
    """File bytes are the tensors' bytes and at most 31 bytes of padding each."""
    model = load_model("qwen2.5-vl-7b")
    for size, tensors in (
        (model.file_bytes, model.language.tensors),
        (model.projector_file_bytes, model.vision.tensors),
    ):
        stored = sum(tensor_bytes(tensor.format, tensor.shape) for tensor in tensors)
        assert 0 <= size - stored < 32 * len(tensors)
    assert model.quantization == "Q4_K_M"


# layers, width, vocabulary and context of the language model, layers and width of the tower: as a stored copy of the
# model's own config.json has them, wherever a whole copy was read. None: not in that file.
PUBLISHED = {
    "gemma-4-26b-a4b": (30, 2816, 262144, 262144, 27, 1152),
    "gemma-4-31b": (60, 5376, 262144, 262144, 27, 1152),
    "gemma-4-e2b": (35, 1536, 262144, 131072, 16, 768),
    "glm-4.1v-9b": (40, 4096, 151552, 65536, 24, 1536),
    "gpt-oss-20b": (24, 2880, 201088, 131072, None, None),
    "kimi-k2.5": (61, 7168, 163840, 262144, 27, 1152),
    "lfm2-vl-450m": (16, 1024, 65536, 128000, 12, 768),
    "llama-3.1-70b": (80, 8192, 128256, 131072, None, None),
    "llama-3.1-8b": (32, 4096, 128256, 131072, None, None),
    "llama-3.2-11b-vision": (40, 4096, 128256, 131072, 32, 1280),
    "llama-4-scout": (48, 5120, 202048, 10485760, None, None),
    "minicpm-v-2.6": (28, 3584, 151666, None, 27, 1152),
    "minicpm-v-4": (32, 2560, 73448, 32768, 27, 1152),
    "minicpm-v-4.6": (24, 1024, 248094, 262144, 27, 1152),
    "molmo-7b-d": (28, 3584, 152064, 4096, None, None),
    "qwen2.5-vl-3b": (36, 2048, 151936, None, 32, 1280),
    "qwen2.5-vl-7b": (28, 3584, 152064, 128000, 32, 1280),
    "qwen3-vl-235b-a22b": (94, 4096, 151936, 262144, 27, 1152),
    "qwen3-vl-2b": (28, 2048, 151936, 262144, 24, 1024),
    "qwen3-vl-30b-a3b": (48, 2048, 151936, 262144, 27, 1152),
    "qwen3-vl-32b": (64, 5120, 151936, 262144, 27, 1152),
    "qwen3-vl-4b": (36, 2560, 151936, 262144, 24, 1024),
    "qwen3-vl-8b": (36, 4096, 151936, 262144, 27, 1152),
    "qwen3.5-35b-a3b": (40, 2048, 248320, 262144, 27, 1152),
    "qwen3.5-9b": (32, 4096, 248320, 262144, 27, 1152),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_those_of_the_published_configuration(name):
    """A profile repeats its model's config.json: a family's usual value does not stand in for the file's."""
    model = load_model(name, None, "hf")
    language, vision = model.language, model.vision
    sizes = (language.n_layers, language.n_embd, language.n_vocab, language.n_context_train)
    sizes += (None, None) if vision is None else (vision.n_layers, vision.n_embd)
    assert all(want in (None, have) for want, have in zip(PUBLISHED[name], sizes, strict=True)), sizes


def test_layer_kinds_of_hybrids():
    """Patterns put every kind where the model has it."""
    mixers = {
        "llama-3.2-11b-vision": {3: CrossAttention, 4: Attention, 38: CrossAttention},
        "qwen3.5-9b": {0: GatedDeltaNet, 3: Attention, 31: Attention},
        "lfm2-vl-450m": {0: ShortConv, 2: Attention, 15: ShortConv},
        "deepseek-v2-lite": {0: LatentAttention, 26: LatentAttention},
    }
    for name, wanted in mixers.items():
        layers = load_model(name, "F16").language.layers
        assert {index: type(layers[index].mixer) for index in wanted} == wanted
    windows = [layer.mixer.window_tokens for layer in load_model("gemma-3-12b", "F16").language.layers]
    assert windows == ([1024] * 5 + [None]) * 8


BAD = {
    "an unknown key": ("colour: red\n", "colour"),
    "a wrong type": ("family: 7\n", "family"),
    "a missing source": ("source: null\n", "source"),
    "a negative width": ("language: {embd: -1}\n", "embd"),
    "a float for a count": ("language: {layers: 1.5}\n", "layers"),
    "too short a pattern": ("language: {pattern: [{cycle: [layer], layers: 3}]}\n", "pattern"),
    "a pattern of unknown kinds": ("language: {pattern: [purple]}\n", "purple"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_profile_is_refused(name):
    """Unknown keys, wrong types and patterns that do not add up never become a model."""
    change, word = BAD[name]
    base = load_data("models/qwen2.5-vl-7b.yaml")
    with pytest.raises((UsageError, SourceError), match=word):
        read_record(Profile, unfolded(merged(base, parse_yaml(change, "change")), gguf=True))


def test_yaml_is_read_strictly():
    """A key that stands twice, anywhere, is an error, and so is text that is no YAML."""
    for text in ("a: 1\na: 2\n", "a: {b: 1, b: 2}\n", "a: [1\n", "a: !!python/object/apply:os.system [ls]\n"):
        with pytest.raises(SourceError) as caught:
            parse_yaml(text, "here.yaml")
        assert str(caught.value).startswith("here.yaml: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="missing"):
        load_data("models/missing.yaml")


def test_only_the_wanted_profile_is_parsed():
    """Finding one model parses a handful of files, not the catalogue."""
    code = (
        "from planner.catalog import load_model; import planner.catalog.data as d\n"
        "load_model('qwen2.5vl:7b', 'Q4_K_M'); print(d.load_data.cache_info().currsize)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROFILES.parents[1]
    )
    assert int(done.stdout) <= 6


def test_no_code_among_the_profiles():
    """Profiles are data: nothing but YAML, and the two JSON Schemas, lies there."""
    assert {path.suffix for path in PROFILES.parent.rglob("*") if path.is_file()} == {".yaml", ".json"}
