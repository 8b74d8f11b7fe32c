"""`vlplan tokens`: what an image becomes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from planner.cli.options import json_option, source_options
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.budget import ImageTokens
    from planner.workload import ImageSize


@click.command(name="tokens")
@click.argument("model")
@click.option("--image", "images", multiple=True, metavar="WxH", help="An image size. Repeat for several.")
@click.option("--file", "files", multiple=True, metavar="PICTURE", help="A picture whose size is read from its header.")
@click.option("--engine", help="Engines count differently.  [default: llama.cpp, or transformers where it cannot]")
@click.option("--image-max-tokens", type=click.IntRange(1), metavar="N", help="llama.cpp's --image-max-tokens.")
@click.option("--image-min-tokens", type=click.IntRange(1), metavar="N", help="llama.cpp's --image-min-tokens.")
@source_options
@json_option
def command(  # noqa: PLR0913 - options
    model: str,
    *,
    images: tuple[str, ...],
    files: tuple[str, ...],
    engine: str | None,
    image_max_tokens: int | None,
    image_min_tokens: int | None,
    as_json: bool,
) -> int:
    """Show what images become for MODEL: tokens, tiles, effective size, wasted pixels, and what to send instead.

    Without --image and --file, a table over usual sizes.
    """
    from planner.catalog.engines import engine_name  # noqa: PLC0415 - help needs none of this
    from planner.deployment import parse_images  # noqa: PLC0415
    from planner.report.tokens import advice_mapping, advice_screen, ladder_mapping, ladder_screen  # noqa: PLC0415
    from planner.sources.opening import open_model  # noqa: PLC0415
    from planner.vision import has_rule, image_tokens  # noqa: PLC0415
    from planner.vision.advice import advise, ladder  # noqa: PLC0415

    name = engine_name(engine or "llama.cpp")
    found = open_model(model, engine=name)
    vision = found.vision
    if vision is None:
        raise UsageError(f"{found.name} takes no images")
    if engine is None and not has_rule(vision, name):
        name = "transformers"
    if (image_max_tokens or image_min_tokens) and name not in ("llama.cpp", "ollama"):
        raise UsageError(f"--image-max-tokens and --image-min-tokens are llama.cpp's; counted is for {name}")
    sizes = [*dict.fromkeys(parse_images(images)), *(_picture(path, name) for path in files)]

    def count(image: ImageSize) -> ImageTokens:
        return image_tokens(vision, image, name, image_max_tokens=image_max_tokens, image_min_tokens=image_min_tokens)

    if not sizes:
        rows = ladder(count)
        click.echo(
            json.dumps(ladder_mapping(found, name, rows), indent=2) if as_json else ladder_screen(found, name, rows)
        )
        return 0
    advices = [(size, advise(count, size)) for size in sizes]
    if as_json:
        click.echo(json.dumps(advice_mapping(found, name, advices), indent=2))
    else:
        click.echo(advice_screen(found, name, advices))
    return 0


def _picture(path: str, engine: str) -> ImageSize:
    """Return a picture's size as the engine sees it: llama.cpp's decoder does not turn pictures upright."""
    from planner.sources.picture import picture_size  # noqa: PLC0415 - only when a picture is named

    return picture_size(path, upright=engine not in ("llama.cpp", "ollama"))
