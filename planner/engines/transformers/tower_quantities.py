"""Numbers of elements of the tensors that the vision tower allocates, by the moments' names.

P patches of the batch with class tokens, s patches of one sequence, hv width, Iv feed-forward width, Hv heads, dv head
size, h width of the language model. Source: transformers 5.23.0 modelling code, torch 2.13 operators.
"""

from __future__ import annotations

from planner.engines.transformers.prefill import Prefill
from planner.engines.transformers.quantities import Quantity
from planner.model import Layer, Vision
from planner.units import align


def _vision(p: Prefill) -> Vision:
    if p.vision is None:  # pragma: no cover - text models have no tower moments
        raise AssertionError("a moment of the tower without a tower")
    return p.vision


def patch(p: Prefill, _: Layer) -> int:
    """One element per row of the tower: P."""
    return p.n_patches if p.vision else 0


def patch_embd(p: Prefill, _: Layer) -> int:
    """Hidden states of the tower: P·hv."""
    return p.n_patches * _vision(p).n_embd


def patch_ff(p: Prefill, _: Layer) -> int:
    """One projection of the tower's feed-forward block: P·Iv."""
    return p.n_patches * (p.language.n_embd if p.form.tower_ff == "language" else _vision(p).n_ff)


def patch_rope(p: Prefill, _: Layer) -> int:
    """Cosines, or sines, of the tower: P·dv."""
    return p.n_patches * (_vision(p).n_embd // max(1, _vision(p).n_heads))


def patch_scores(p: Prefill, _: Layer) -> int:
    """Scores of all the tower's sequences at once: Hv·Σs²."""
    return p.n_batch * p.n_sequence_squares * _vision(p).n_heads


def patch_mask(p: Prefill, _: Layer) -> int:
    """A mask over each of the tower's sequences: Σs²."""
    return p.n_batch * p.n_sequence_squares


def image_scores(p: Prefill, _: Layer) -> int:
    """Scores of the longest sequence, where images are taken one by one: Hv·max s²."""
    return p.longest_sequence**2 * _vision(p).n_heads


def earlier_patch_embd(p: Prefill, _: Layer) -> int:
    """What the images before the longest one leave behind while it is taken: (P less the rest)·hv."""
    return (p.n_patches - p.n_tail_patches) * _vision(p).n_embd


def batched_patch_embd(p: Prefill, _: Layer) -> int:
    """P·hv where more than one picture is encoded at once; a single one needs no copy to be contiguous."""
    return p.n_patches * _vision(p).n_embd if p.n_batch * p.n_sequences > 1 else 0


def joint_mask(p: Prefill, _: Layer) -> int:
    """The mask over all patches of the batch in one sequence: P²."""
    return p.n_patches * p.n_patches


def aligned_joint_mask(p: Prefill, _: Layer) -> int:
    """Its copy where P is no multiple of 16."""
    return p.n_patches * align(p.n_patches, 16) if p.n_patches % 16 else 0


def joint_scores(p: Prefill, layer: Layer) -> int:
    """Scores of all patches of the batch in one sequence: Hv·P²."""
    return joint_mask(p, layer) * _vision(p).n_heads


def canvas_embd(p: Prefill, _: Layer) -> int:
    """Patches of the batch on the common canvas, padding included, at the tower's width."""
    vision = _vision(p)
    across, down = (side // vision.patch_size for side in p.canvas)
    return p.n_batch * p.n_images * across * down * vision.n_embd


def canvas_pixels(p: Prefill, _: Layer) -> int:
    """Pixels of the batch on the common canvas, three channels."""
    return p.n_batch * p.n_images * 3 * p.canvas[0] * p.canvas[1]


def tile_pixels(p: Prefill, layer: Layer) -> int:
    """Pixels of all square tiles, three channels."""
    return 3 * tile_area(p, layer)


def padded_tile_pixels(p: Prefill, _: Layer) -> int:
    """The same where images with fewer tiles are padded to the most tiles of any."""
    return 3 * padded_tiles(p, _) * _vision(p).image_size ** 2


def padded_tiles(p: Prefill, _: Layer) -> int:
    """Tiles of all images, those with fewer padded to the most tiles of any."""
    return p.n_batch * p.n_images * p.most_tiles


def tile_area(p: Prefill, _: Layer) -> int:
    """Pixels of all square tiles, one channel."""
    return p.n_batch * p.n_sequences * _vision(p).image_size ** 2 if p.vision else 0


def patch_pixels(p: Prefill, _: Layer) -> int:
    """Pixels as rows of patches, three channels; class tokens have none."""
    return p.n_patches * 3 * _vision(p).patch_size ** 2


def slice_tokens(p: Prefill, _: Layer) -> int:
    """Slices padded to the longest, at the language model's width: n·max s·h."""
    return p.n_batch * p.n_sequences * p.longest_sequence * p.language.n_embd


def resampler_queries(p: Prefill, _: Layer) -> int:
    """The learned queries of one slice at the language model's width."""
    return p.n_image_tokens // max(1, p.n_sequences) * p.language.n_embd


def several_images(p: Prefill, _: Layer) -> int:
    """Images of the whole batch where there is more than one; a single one needs no copy to be contiguous."""
    n_images = p.n_batch * p.n_images
    return n_images if n_images > 1 else 0


def tiles(p: Prefill, _: Layer) -> int:
    """Sequences of the whole batch."""
    return p.n_batch * p.n_sequences


def padded_patch_mask(p: Prefill, layer: Layer) -> int:
    """A mask over each of the tower's sequences, where any of them is padded: Σs²."""
    return patch_mask(p, layer) if p.n_view_patches < p.n_sequence_patches else 0


def aligned_padded_patch_mask(p: Prefill, layer: Layer) -> int:
    """Its copy where the rows are no multiple of 16 elements; padded sequences are all of one length."""
    rows = tiles(p, layer) * p.longest_sequence
    return rows * align(p.longest_sequence, 16) if padded_patch_mask(p, layer) and p.longest_sequence % 16 else 0


def pooled_embd(p: Prefill, _: Layer) -> int:
    """Patches pooled to one per image token, at the tower's width: T·hv."""
    return p.n_batch * p.n_image_tokens * _vision(p).n_embd


TOWER: tuple[Quantity, ...] = (
    several_images,
    tiles,
    padded_patch_mask,
    aligned_padded_patch_mask,
    pooled_embd,
    patch,
    patch_embd,
    patch_ff,
    patch_rope,
    patch_scores,
    patch_mask,
    image_scores,
    earlier_patch_embd,
    batched_patch_embd,
    joint_mask,
    aligned_joint_mask,
    joint_scores,
    canvas_embd,
    canvas_pixels,
    tile_pixels,
    padded_tile_pixels,
    padded_tiles,
    tile_area,
    patch_pixels,
    slice_tokens,
    resampler_queries,
)
