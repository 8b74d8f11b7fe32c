"""Image size → tiles, patches, tokens: one file per resizing rule, chosen by the rule's word in the model's profile.

A model has up to two rules: ``processor``, its own image processor as transformers, vLLM, SGLang and LMDeploy run it,
and ``mtmd``, what llama.cpp (and Ollama with it) does instead. A new rule is one file and one line of ``RULES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from planner.budget import ImageTokens
from planner.errors import UsageError
from planner.model import ImageRule, Number, Vision
from planner.vision.mtmd import MTMD_RULES
from planner.vision.parameters import Parameters

if TYPE_CHECKING:
    from planner.vision.tiling import Rule, Tiling
    from planner.workload import ImageSize

Counting = Literal["processor", "mtmd"]

RULES: Mapping[str, str] = {  # a rule's word -> the module that has the function of that name
    **{
        word: f"planner.vision.{word}"
        for word in (
            "adaptive_slices",
            "anyres",
            "candidate_resolutions",
            "canvas_tiles",
            "covering_tiles",
            "dynamic_hd",
            "fixed",
            "global_and_tiles",
            "hd_transform",
            "least_upscaled_tiles",
            "longest_edge",
            "longest_edge_tiles",
            "naflex_tiles",
            "navit_resize",
            "overlapping_crops",
            "pan_and_scan",
            "patch_budget",
            "pooled_budget",
            "smart_resize",
            "tile_grid",
            "tiled_canvas",
            "window_crops",
        )
    },
    "merged_crops": "planner.vision.overlapping_crops",
    "navit_token_limit": "planner.vision.navit_resize",
    **MTMD_RULES,
}

SYNONYMS: Mapping[str, str] = {
    "shortest_edge": "min_pixels",
    "longest_edge": "max_pixels",
    "max_dynamic_patch": "max_patches",
    "min_dynamic_patch": "min_patches",
    "max_image_size": "tile",
}
WITHOUT_EFFECT = frozenset({"device", "do_convert_rgb", "do_normalize", "do_rescale", "fps", "num_frames", "use_fast"})
COUNTING: Mapping[str, Counting] = {"llama.cpp": "mtmd", "ollama": "mtmd"}  # every other engine: processor
MAX_MTMD_SIDE = 65536  # pixels; llama.cpp refuses to resize to more


def image_tokens(  # noqa: PLR0913 - each is one flag of an engine
    vision: Vision,
    image: ImageSize,
    engine: str = "transformers",
    *,
    image_max_tokens: int | None = None,
    image_min_tokens: int | None = None,
    overrides: Mapping[str, object] | None = None,
    n_images: int = 1,
) -> ImageTokens:
    """Return what one image becomes for an engine: tokens, tiles, the sequences its tower sees, what is thrown away.

    Args:
        vision: the tower with its rules.
        image: width and height in pixels.
        engine: llama.cpp and ollama count as mtmd does, every other engine as the model's processor.
        image_max_tokens: llama.cpp's ``--image-max-tokens``; only projectors with native resolution heed it.
        image_min_tokens: llama.cpp's ``--image-min-tokens``.
        overrides: the user's words for the processor (``mm_processor_kwargs``), such as ``max_pixels``.
        n_images: images in the same request; a few processors stop cutting when there are more.

    Raises:
        UsageError: the model has no rule for this engine, a word is unknown, or the processor refuses the image.
    """
    counting = COUNTING.get(engine, "processor")
    rule = vision.rules.get(counting)
    if rule is None:
        raise UsageError(f"no rule is known by which {engine} turns this model's images into tokens")
    values = dict(rule.parameters)
    if counting == "mtmd":
        values.update(_flags(values, engine, image_min_tokens, image_max_tokens))
    else:
        values.update({"n_images": n_images, **_overrides(overrides or {}, rule)})
    return counted(image, ImageRule(rule=rule.rule, parameters=values), counting)


def has_rule(vision: Vision, engine: str) -> bool:
    """Whether it is known how ``engine`` turns this tower's images into tokens."""
    return COUNTING.get(engine, "processor") in vision.rules


def counted(image: ImageSize, rule: ImageRule, counting: Counting = "processor") -> ImageTokens:
    """Return what one image becomes under one rule, its parameters complete.

    Raises:
        UsageError: the rule is unknown, a parameter is missing or wrong, or the image is refused.
    """
    module = RULES.get(rule.rule)
    if module is None:
        raise UsageError(f"image rule {rule.rule!r} is unknown; known are {', '.join(sorted(RULES))}")
    try:
        tiling = _rule(module, rule.rule)(image, Parameters(rule.rule, rule.parameters))
    except (ArithmeticError, ValueError) as error:
        raise UsageError(f"image rule {rule.rule!r}: its parameters contradict each other ({error})") from error
    if counting == "mtmd" and any(not 0 < side <= MAX_MTMD_SIDE for side in _sides(tiling)):
        raise UsageError(f"image {image}: llama.cpp cannot resize it; a side would be empty or beyond {MAX_MTMD_SIDE}")
    return _image_tokens(image, tiling, counting)


def _rule(module: str, word: str) -> Rule:
    """Return a rule's function, imported when the first image asks for it."""
    rule: Rule = getattr(import_module(module), word.removeprefix("mtmd_"))
    return rule


def _sides(tiling: Tiling) -> tuple[int, ...]:
    return (*tiling.content, *(side for view in tiling.views for side in (view.width, view.height)))


def _image_tokens(image: ImageSize, tiling: Tiling, counting: Counting) -> ImageTokens:
    seen = image.width * image.height if tiling.visible_pixels is None else tiling.visible_pixels
    kept = min(seen, tiling.content[0] * tiling.content[1])
    positions = tiling.tokens if tiling.n_positions is None else tiling.n_positions
    return ImageTokens(
        image=str(image),
        tokens=tiling.tokens,
        extra_tokens=tiling.extra_tokens,
        resized_to=f"{tiling.content[0]}x{tiling.content[1]}",
        wasted_pixels=image.width * image.height - kept,
        tiles=tiling.n_tiles or len(tiling.views),
        encoder_sequences=tiling.sequences or tuple(view.n_sequence for view in tiling.views),
        cross_tokens=tiling.cross_tokens,
        counting=counting,
        patch_grids=tuple(view.patch_grid for view in tiling.views),
        chunk_tokens=tiling.chunk_tokens or (tiling.tokens,),
        token_grid=tiling.token_grid,
        n_positions=positions + tiling.extra_tokens,
    )


def _flags(
    values: Mapping[str, Number], engine: str, image_min_tokens: int | None, image_max_tokens: int | None
) -> dict[str, Number]:
    """Return llama.cpp's two flags; Ollama passes the least by itself for some models."""
    least = values.get("ollama_image_min_tokens") if engine == "ollama" else None
    flags = {"image_min_tokens": image_min_tokens or least, "image_max_tokens": image_max_tokens}
    return {name: value for name, value in flags.items() if value is not None}


def _overrides(overrides: Mapping[str, object], rule: ImageRule) -> dict[str, Number]:
    """Return the user's words for the processor as parameters of the rule, ``size`` taken apart.

    Words that change no image's size, such as those for videos, are passed over.

    Raises:
        UsageError: the rule has no such parameter.
    """
    flat = dict(overrides)
    size = flat.pop("size", {})
    if isinstance(size, Mapping):
        flat.update({str(key): value for key, value in size.items()})
    found: dict[str, Number] = {}
    for word, value in flat.items():
        if word in WITHOUT_EFFECT:
            continue
        name = word if word in rule.parameters else SYNONYMS.get(word, word)
        if name not in rule.parameters or not isinstance(value, bool | int | float | str):
            known = ", ".join(sorted(rule.parameters))
            raise UsageError(f"the model's processor ({rule.rule}) takes no {word}={value!r}; it has {known}")
        found[name] = value
    return found
