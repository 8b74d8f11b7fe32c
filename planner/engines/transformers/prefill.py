"""One prefill as numbers: how many tokens, patches and pixels pass through which widths. No bytes here."""

from __future__ import annotations

from planner.budget import ImageTokens
from planner.engines.transformers.forms import ClassForm
from planner.engines.transformers.settings import TransformersSettings
from planner.frozen import dataclass
from planner.model import Attention, DenseFfn, Language, Mamba, Model, Vision
from planner.workload import Workload

BOUND_MARGIN = 0.25  # where a kind of layer was not followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """A batch of equal requests; what concerns sequences of the tower is of one request."""

    language: Language
    vision: Vision | None
    form: ClassForm
    element_bytes: int
    n_batch: int
    n_tokens: int  # of one prompt: text, image tokens and the processor's structural tokens
    n_text_tokens: int = 0  # of one prompt
    n_image_tokens: int = 0  # of one prompt
    n_images: int = 0  # of one prompt
    n_cross_tokens: int = 0  # of one prompt: what cross-attention sees of the tower's output
    n_sequences: int = 0
    n_view_patches: int = 0  # of all views together, before sequences are padded
    n_sequence_patches: int = 0  # of all sequences together
    n_sequence_squares: int = 0  # each sequence's patches squared, together
    longest_sequence: int = 0
    n_tail_patches: int = 0  # from the last of the longest sequences to the end
    most_tiles: int = 0  # of one image
    canvas: tuple[int, int] = (0, 0)  # the widest and the highest image after resizing, in pixels
    all_logits: bool = False
    padded: bool = False

    @property
    def traced(self) -> bool:
        """Whether every kind of layer was followed in this modelling class; a class not listed has plain ones only."""
        layers = self.language.layers
        if any(isinstance(layer.mixer, Mamba) for layer in layers):
            return False
        plain = all(isinstance(layer.mixer, Attention) and isinstance(layer.ffn, DenseFfn) for layer in layers)
        return self.form.known and (self.form.listed or plain)

    @property
    def margin(self) -> float:
        """Spread of the compute figure, as a fraction of the peak."""
        return self.form.margin if self.traced else max(self.form.margin, BOUND_MARGIN)

    @property
    def n_rows(self) -> int:
        """Tokens of the whole batch."""
        return self.n_batch * self.n_tokens

    @property
    def n_patches(self) -> int:
        """Rows that enter the tower for the whole batch, class tokens included."""
        return self.n_batch * self.n_sequence_patches


def prefill_of(
    model: Model, workload: Workload, settings: TransformersSettings, images: tuple[ImageTokens, ...], form: ClassForm
) -> Prefill:
    """Return the prefill of ``workload.batch`` requests of ``prompt_tokens`` of text with ``images`` each."""
    structural = sum(image.extra_tokens for image in images)
    own = sum(image.tokens for image in images)
    sequences = [n for image in images for n in image.encoder_sequences]
    text = workload.prompt_tokens
    if images:
        text = text + form.prompt_tokens if form.own_prompt_tokens is None else form.own_prompt_tokens
    return Prefill(
        language=model.language,
        vision=model.vision,
        form=form,
        element_bytes=settings.element_bytes,
        n_batch=workload.batch * workload.sequences,
        n_tokens=max(1, text + own + structural),
        n_text_tokens=text,
        n_image_tokens=own,
        n_images=len(images),
        n_cross_tokens=sum(image.cross_tokens or 0 for image in images),
        n_sequences=len(sequences),
        n_view_patches=sum(across * down for image in images for across, down in image.patch_grids),
        n_sequence_patches=sum(sequences),
        n_sequence_squares=sum(n * n for n in sequences),
        longest_sequence=max(sequences, default=0),
        n_tail_patches=_tail(sequences),
        most_tiles=max((len(image.encoder_sequences) for image in images), default=0),
        canvas=_canvas(images, model.vision),
        all_logits=form.every_logit or settings.logits == "all",
        padded=settings.padded,
    )


def _tail(sequences: list[int]) -> int:
    """Return the patches from the last of the longest sequences on, itself included."""
    longest = max(sequences, default=0)
    first = max((i for i, n in enumerate(sequences) if n == longest), default=0)
    return sum(sequences[first:])


def _canvas(images: tuple[ImageTokens, ...], vision: Vision | None) -> tuple[int, int]:
    patch = vision.patch_size if vision else 1
    grids = [grid for image in images for grid in image.patch_grids]
    return (max((a for a, _ in grids), default=0) * patch, max((b for _, b in grids), default=0) * patch)
