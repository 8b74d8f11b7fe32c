"""Tokens as llama.cpp's mtmd counts them: from profiles, from true projector headers, for every projector."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from gguf_headers import headers, read_bytes
from vision_rows import rows

from planner.catalog import load_data
from planner.catalog.models import load_model
from planner.errors import UsageError
from planner.model import ImageRule, Vision
from planner.vision import counted, image_tokens
from planner.vision.mtmd.projector_file import mtmd_rule, with_architecture
from planner.workload import ImageSize, parse_image_size

RULES = "engines/llama_cpp/image_rules.yaml"
TABLES = ("llamacpp_vision", "llamacpp_vision_2026", "mtmd_odd_sizes")
PROFILES = {"granite-vision-3.3": "granite-vision-3.3-2b"}  # rows of a model by another name


def by_projector(*tables: str) -> dict[str, list[dict]]:
    """Return the tables' rows by projector file."""
    found = defaultdict(list)
    for table in tables:
        for row in rows(table):
            found[row["mmproj"]].append(row)
    return found


def vision_of(rule: ImageRule | None) -> Vision:
    """Return a tower that has nothing but a rule."""
    sizes = dict.fromkeys(("n_layers", "n_embd", "n_ff", "n_heads", "patch_size", "image_size"), 1)
    return Vision(tower="any", projector="any", rules={} if rule is None else {"mtmd": rule}, **sizes)


def check(vision: Vision, row: dict) -> None:
    """Compare one row: tokens in all and per chunk, marker tokens, positions."""
    most = row["env"].get("IMG_MAX_TOKENS")
    size = parse_image_size(row["image"])
    found = image_tokens(vision, size, "llama.cpp", image_max_tokens=int(most) if most else None)
    assert found.counting == "mtmd"
    assert found.tokens == row["tokens"], row
    assert list(found.chunk_tokens) == row["chunk_tokens"], row
    assert found.extra_tokens == row["marker_text_tokens"], row
    assert found.n_positions == row["n_pos"], row


@pytest.mark.parametrize("projector", by_projector(*TABLES))
def test_profiles_are_exact(projector: str) -> None:
    """A profile's mtmd rule gives every figure that the engine gave, also at 1x1, 17x990 and 8000x6000."""
    vision = load_model(PROFILES.get(projector, projector)).vision
    for row in by_projector(*TABLES)[projector]:
        check(vision, row)


@pytest.mark.parametrize("projector", by_projector("llamacpp_vision", "llamacpp_vision_2026"))
def test_projector_files_are_exact(projector: str) -> None:
    """The rule read from a true projector header, without a profile, gives the same figures."""
    keys = read_bytes(headers()[f"mmproj-{projector}.gguf"]).metadata
    word = keys.get("clip.vision.projector_type", keys.get("clip.projector_type"))
    vision = vision_of(mtmd_rule(word, keys, load_data(RULES)))
    for row in by_projector("llamacpp_vision", "llamacpp_vision_2026")[projector]:
        check(vision, row)


@pytest.mark.parametrize("case", rows("mtmd_preprocessors"), ids=lambda case: case["projector"])
def test_every_projector_is_exact(case: dict) -> None:
    """For every kind of projector the views are those of the engine's own preprocessor, in size, number and tokens."""
    rule = mtmd_rule(case["projector"], case["metadata"], load_data(RULES))
    complete = ImageRule(rule=rule.rule, parameters={**rule.parameters, **case["flags"]})
    lead_pads = 3 if rule.rule == "mtmd_token_block" else 0  # depend on the place in the prompt; the most is assumed
    patch = rule.parameters["patch"]
    for image, views in case["images"]:
        found = counted(parse_image_size(image), complete, "mtmd")
        assert found.tokens == sum(tokens for _, _, tokens in views) + lead_pads, image
        if rule.rule in ("mtmd_global_tiles", "mtmd_stacked_tiles"):  # the engine glues tiles together
            area = sum(width * height for width, height, _ in views)
            assert sum(across * down for across, down in found.patch_grids) == area // patch**2 if patch else 0
        else:
            grids = Counter((width // patch, height // patch) for width, height, _ in views)
            assert Counter(found.patch_grids) == grids, image


def test_the_tables_are_whole() -> None:
    """The rows compared above are all there: 862 of the tables, 438 fresh ones, every projector that sees."""
    assert [len(rows(table)) for table in TABLES] == [404, 458, 438]
    assert sum(len(case["images"]) for case in rows("mtmd_preprocessors")) == 1092
    assert {case["projector"] for case in rows("mtmd_preprocessors")} == set(load_data(RULES)["projectors"])


def test_ollama_asks_for_more_tokens() -> None:
    """Ollama passes --image-min-tokens 1024 for Qwen-VL models, and for no other; the user's own value wins."""
    size = ImageSize(width=336, height=336)
    qwen, newer = load_model("qwen2.5-vl-7b").vision, load_model("qwen3.5-4b").vision
    assert image_tokens(qwen, size, "llama.cpp").tokens == 144
    assert image_tokens(qwen, size, "ollama").tokens == 1024
    assert image_tokens(qwen, size, "ollama", image_min_tokens=256).tokens == 256
    assert image_tokens(newer, size, "ollama").tokens == image_tokens(newer, size, "llama.cpp").tokens


def test_a_projector_file_beside_its_language_model_gets_ollamas_floor() -> None:
    """For a file the floor follows the text architecture: Qwen3.5 shares Qwen3-VL's projector but not its floor."""
    data = load_data(RULES)
    rule = mtmd_rule("qwen3vl_merger", {"image_size": 768, "patch_size": 16}, data)
    tokens = {
        name: image_tokens(
            vision_of(with_architecture(rule, name, data)), ImageSize(width=336, height=336), "ollama"
        ).tokens
        for name in ("qwen3vl", "qwen35")
    }
    assert tokens == {"qwen3vl": 1024, "qwen35": 121}


def test_limits_that_contradict_are_refused_as_at_load() -> None:
    """A largest number of tokens under the projector's least is refused by the engine when it loads."""
    vision = load_model("qwen2.5-vl-7b").vision
    with pytest.raises(UsageError, match=r"llama\.cpp refuses to load: at least 8 image tokens, but at most 4"):
        image_tokens(vision, ImageSize(width=336, height=336), "llama.cpp", image_max_tokens=4)


def test_an_unknown_projector_has_no_rule() -> None:
    """A projector's word that the data does not know gives None, and a model without a rule one clear line."""
    assert mtmd_rule("brand_new", {"clip.vision.image_size": 512}, load_data(RULES)) is None
    with pytest.raises(UsageError, match=r"no rule is known by which llama\.cpp turns"):
        image_tokens(vision_of(None), ImageSize(width=1, height=1), "llama.cpp")


def test_hostile_projector_files_are_refused_at_once() -> None:
    """Absurd numbers in a file's keys end in one line, not in memory or time."""
    size = ImageSize(width=8000, height=6000)
    sizes = {"image_size": 448, "patch_size": 14}
    absurd = [
        ("internvl", {**sizes, "preproc_max_tiles": 2**31}),
        ("internvl", {"image_size": 448, "patch_size": 0}),
        ("mlp", {"image_size": 1, "patch_size": 1, "image_grid_pinpoints": (10**6, 10**6)}),
        ("mlp", {**sizes, "image_grid_pinpoints": (448,)}),
        ("idefics3", {"image_size": 1, "patch_size": 1, "preproc_image_size": 10**9}),
        ("granite4_vision", {**sizes, "image_grid_pinpoints": (384, 384), "projector.query_side": 4}),
        ("qwen2vl_merger", {**sizes, "patch_size": -3}),
        ("qwen2vl_merger", {}),
        ("deepseekocr", {"preproc_min_tiles": 9, "preproc_max_tiles": 2**40}),
    ]
    for projector, keys in absurd:
        rule = mtmd_rule(projector, keys, load_data(RULES))
        with pytest.raises(UsageError):
            image_tokens(vision_of(rule), size, "llama.cpp")
