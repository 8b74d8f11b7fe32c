"""The vision encoder as items of the budget: weights, what is reserved at load, and the peak for the images asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.budget import ImageTokens, Item, exact_item
from planner.engines.llama_cpp.budget import SOURCE, Encoding
from planner.engines.llama_cpp.encoder import (
    EncoderBuffers,
    EncoderKind,
    Picture,
    encoder_buffers,
    encoding_batches,
    pictures_of,
)
from planner.engines.llama_cpp.layout import HOST
from planner.engines.llama_cpp.run import Run, capability_of
from planner.model import Vision

UNKNOWN_BACKEND = 1.5  # the high bound of compute on back ends whose rules were not read


def encoding_of(run: Run, images: Sequence[ImageTokens], kinds: Mapping[str, EncoderKind]) -> Encoding | None:
    """Return the encoder's items and the device that holds them, None for a model without one.

    Expected is one view after the other, as measured; the high bound has equal views encoded together, as the
    programs do for some towers (``--mtmd-batch-max-tokens``).
    """
    vision, settings, gpus = run.model.vision, run.settings, run.machine.gpus
    if vision is None or not vision.tensors:
        return None
    on_gpu = bool(gpus) and not settings.no_mmproj_offload
    kind = kinds.get(vision.projector)
    views = _views(vision, tuple(dict.fromkeys(images)), kind)

    def buffers_for(pictures: Sequence[Picture]) -> EncoderBuffers:
        return encoder_buffers(
            vision,
            kinds,
            pictures,
            flash_attn=settings.flash_attn,
            on_gpu=on_gpu,
            compute_capability=capability_of(gpus),
            max_tokens=settings.image_max_tokens,
        )

    single = buffers_for([picture for picture, _ in views])
    batches = encoding_batches(kind, _views(vision, images, kind))
    together = buffers_for(tuple(dict.fromkeys(batches))) if kind is not None and kind.batched else single
    foreign = on_gpu and gpus[0].backend != "cuda"
    own = _compute(single, together, len(images), on_host=not on_gpu, foreign=foreign)
    return Encoding(
        device=0 if on_gpu else HOST,
        items=(_weights(single), *own),
        host_items=_compute(single, together, len(images), on_host=True, foreign=foreign) if on_gpu else (),
    )


def _views(vision: Vision, images: Sequence[ImageTokens], kind: EncoderKind | None) -> list[tuple[Picture, int]]:
    """Return every view that is encoded on its own, in pixels, with its tokens."""
    found: list[tuple[Picture, int]] = []
    for image in images:
        chunks = image.chunk_tokens or (image.tokens,)
        found += pictures_of(kind, vision, image.patch_grids, chunks, image.token_grid)
    return found


def _weights(buffers: EncoderBuffers) -> Item:
    return exact_item(
        "weights",
        "vision",
        buffers.counted_weights_bytes,
        formula="sum over the projector file's tensors (tower and projector) of their bytes, as the engine counts",
        source=SOURCE,
    )


def _compute(
    single: EncoderBuffers, together: EncoderBuffers, n_images: int, *, on_host: bool, foreign: bool
) -> tuple[Item, ...]:
    holds_weights = on_host != single.on_gpu
    padding = single.weights_bytes - single.counted_weights_bytes if holds_weights else 0
    resident, peak, most = (
        compute.host_bytes if on_host else compute.device_bytes
        for compute in (single.warm_up, single.peak, together.peak)
    )
    if not peak:
        return ()
    known = single.basis == "exact" and not foreign
    high = max(peak, most) + padding
    return (
        Item(
            component="compute",
            part="vision",
            resident_bytes=resident,
            low_bytes=peak if known else 0,
            expected_bytes=peak + padding,
            high_bytes=round(high * UNKNOWN_BACKEND) if foreign else high,
            basis="modelled" if known else "assumed",
            formula="arena of the encoder's graph: reserved at load for the warm-up picture, grown by the "
            "largest image asked; with the padding of the weights' buffer",
            source=f"{SOURCE}, tools/mtmd, simulated operation by operation",
            inputs={
                "images": n_images,
                "flash_attn": "on" if single.flash else "off",
                "padding_bytes": padding,
                "views_together_bytes": most,
            },
        ),
    )
