"""From an image's views to what the engine encodes in one go: whole pictures, rows of tiles, batches of equal tiles.

Source: tools/mtmd (``mtmd_batch_add_chunk``, clip.cpp) and tools/server, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.engines.llama_cpp.encoder.buffers import Picture
from planner.engines.llama_cpp.encoder.kinds import EncoderKind
from planner.model import Vision

BATCH_TOKENS = 1024  # tokens that programs encode together at most (--mtmd-batch-max-tokens)


def picture_of(kind: EncoderKind | None, vision: Vision, columns: int, rows: int) -> Picture:
    """Return the picture behind a grid of patches.

    A tower of fixed size is given its whole size, also where that leaves a rest beside the last patch.
    """
    patch = kind.patch_of(vision) if kind is not None else vision.patch_size
    width, height = columns * patch, rows * patch
    if kind is not None and not kind.patch and not kind.patch_merges and columns == rows == vision.image_size // patch:
        width = height = vision.image_size
    is_overview = kind is not None and width == height == kind.overview
    return Picture(width=width, height=height, overview=is_overview)


def pictures_of(
    kind: EncoderKind | None,
    vision: Vision,
    grids: Sequence[tuple[int, int]],
    chunk_tokens: Sequence[int],
    token_grid: tuple[int, int] = (0, 0),
) -> list[tuple[Picture, int]]:
    """Return what is encoded on its own for one image, with its tokens.

    Args:
        kind: the projector's type, if known.
        vision: the tower.
        grids: patches across and down of every view, the picture of the whole last.
        chunk_tokens: tokens of every chunk. Fewer chunks than views: each chunk but the last is a row of equal tiles,
            which is encoded as one tall picture.
        token_grid: columns and rows of the tiles' tokens, where padding among them is dropped.
    """
    if kind is not None and kind.layout == "tiles":
        tile = picture_of(kind, vision, *grids[0])
        stacked = replace(tile, height=tile.height * len(grids), laid_out=token_grid)
        return [(stacked, sum(chunk_tokens))]
    if kind is not None and kind.layout == "tokens":
        found = zip(grids, chunk_tokens, strict=True)
        return [(replace(picture_of(kind, vision, *grid), laid_out=(n, 1)), n) for grid, n in found]
    n_rows = len(chunk_tokens) - 1
    tiles = len(grids) - 1
    if kind is not None and kind.overview and 0 < n_rows < tiles and tiles % n_rows == 0:
        columns, rows = grids[0]
        row = picture_of(kind, vision, columns, rows * (tiles // n_rows))
        return [(row, n) for n in chunk_tokens[:-1]] + [(picture_of(kind, vision, *grids[-1]), chunk_tokens[-1])]
    counts = chunk_tokens if len(chunk_tokens) == len(grids) else [sum(chunk_tokens)] * len(grids)
    return [(picture_of(kind, vision, w, h), n) for (w, h), n in zip(grids, counts, strict=True)]


def encoding_batches(
    kind: EncoderKind | None, pictures: Sequence[tuple[Picture, int]], limit: int = BATCH_TOKENS
) -> list[Picture]:
    """Return the pictures as llama-server and llama-mtmd-cli encode them: equal neighbours of up to ``limit`` tokens.

    ``pictures`` are (picture, its tokens) in the order of the prompt. Only some types are encoded together; the library
    call for a single chunk never does it.
    """
    batches: list[tuple[Picture, int]] = []
    for picture, n_tokens in pictures:
        together = kind is not None and kind.batched and bool(batches)
        if together and replace(batches[-1][0], batch=1) == picture and batches[-1][1] + n_tokens <= limit:
            last, n_last = batches[-1]
            batches[-1] = (replace(last, batch=last.batch + 1), n_last + n_tokens)
        else:
            batches.append((picture, n_tokens))
    return [picture for picture, _ in batches]
