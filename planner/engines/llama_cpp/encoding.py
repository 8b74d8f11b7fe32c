"""The vision encoder as items of the budget: weights, what is reserved at load, and the peak for the images asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.budget import Basis, ImageTokens, Item, exact_item
from planner.engines.llama_cpp.budget import SOURCE, Encoding
from planner.engines.llama_cpp.encoder import EncoderBuffers, EncoderKind, Picture, encoder_buffers, encoding_batches
from planner.engines.llama_cpp.layout import HOST
from planner.engines.llama_cpp.run import Run, capability_of
from planner.model import Vision

UNKNOWN_BACKEND = 1.5  # the high bound of compute on back ends whose rules were not read


def encoding_of(run: Run, images: Sequence[ImageTokens], kinds: Mapping[str, EncoderKind]) -> Encoding | None:
    """Return the encoder's items and the device that holds them, None for a model without one."""
    vision, settings = run.model.vision, run.settings
    if vision is None or not vision.tensors:
        return None
    on_gpu = bool(run.machine.gpus) and not settings.no_mmproj_offload
    buffers = encoder_buffers(
        vision,
        kinds,
        pictures_of(vision, images, kinds.get(vision.projector)),
        flash_attn=settings.flash_attn,
        on_gpu=on_gpu,
        compute_capability=capability_of(run.machine.gpus),
        max_tokens=settings.image_max_tokens,
    )
    foreign = on_gpu and run.machine.gpus[0].backend != "cuda"
    return Encoding(
        device=0 if on_gpu else HOST,
        items=(_weights(buffers), *_compute(buffers, images, on_host=not on_gpu, foreign=foreign)),
        host_items=_compute(buffers, images, on_host=True, foreign=foreign) if on_gpu else (),
    )


def pictures_of(vision: Vision, images: Sequence[ImageTokens], kind: EncoderKind | None) -> list[Picture]:
    """Return what is encoded in one go each, in pixels: every view of every image, equal neighbours together."""
    patch = kind.patch_of(vision) if kind is not None else vision.patch_size
    found: list[Picture] = []
    for image in dict.fromkeys(images):
        grids, tokens = image.patch_grids, image.chunk_tokens
        counts = tokens if len(tokens) == len(grids) else (image.tokens,) * len(grids)
        pictures = [(Picture(width=w * patch, height=h * patch), n) for (w, h), n in zip(grids, counts, strict=True)]
        found += encoding_batches(kind, pictures)
    return found


def _weights(buffers: EncoderBuffers) -> Item:
    return exact_item(
        "weights",
        "vision",
        buffers.weights_bytes,
        formula="sum over the projector file's tensors (vision tower and projector) of their bytes, padded",
        source=SOURCE,
    )


def _compute(
    buffers: EncoderBuffers, images: Sequence[ImageTokens], *, on_host: bool, foreign: bool
) -> tuple[Item, ...]:
    resident = buffers.warm_up.host_bytes if on_host else buffers.warm_up.device_bytes
    peak = buffers.peak.host_bytes if on_host else buffers.peak.device_bytes
    if not peak:
        return ()
    basis: Basis = "modelled" if buffers.basis == "exact" and not foreign else "assumed"
    return (
        Item(
            component="compute",
            part="vision",
            resident_bytes=resident,
            low_bytes=peak if basis == "modelled" else 0,
            expected_bytes=peak,
            high_bytes=round(peak * UNKNOWN_BACKEND) if foreign else peak,
            basis=basis,
            formula="arena of the encoder's graph: reserved at load for the warm-up picture, grown by the largest image asked",
            source=f"{SOURCE}, tools/mtmd, simulated operation by operation",
            inputs={"images": len(images), "flash_attn": "on" if buffers.flash else "off"},
        ),
    )
