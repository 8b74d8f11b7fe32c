"""The plot of ``vision.md``: tokens and encoder memory against resolution, from the program's own answers.

``python docs/vision_plot.py`` writes ``vision.svg``; ``table()`` is used by the page's cog block.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from svg import FAINT, line, picture, text  # noqa: E402 - the path is set above

import planner  # noqa: E402
from planner.units import MIB  # noqa: E402

COLORS = {
    "gemma-3-12b": "#8250df",
    "internvl3-8b": "#2da44e",
    "llava-1.6-vicuna-7b": "#bf8700",
    "minicpm-v-2.6": "#cf222e",
    "pixtral-12b": "#6e7781",
    "qwen2.5-vl-7b": "#0969da",
}
WIDTHS = range(224, 3201, 48)
TICKS = (224, 896, 1568, 2240, 3200)
SHOWN = (448, 896, 1344, 2016, 3200)
BOX = {"gpus": [{"total": "80GiB"}], "ram": "64GiB"}
LEFT, TOP, WIDE, HIGH = 56, 44, 330, 300


@cache
def at(model: str, width: int) -> tuple[int, int]:
    """Return the tokens of one 4:3 image and the bytes of the encoder's compute buffer on the GPU (llama.cpp)."""
    workload = {"context": 32768, "images": [f"{width}x{width * 3 // 4}"]}
    answer = planner.estimate({"model": model, "quantization": "Q4_K_M", "machine": BOX, "workload": workload})
    (image,) = answer["image_tokens"]
    items = (item for item in answer["devices"][0]["items"] if item["part"] == "vision")
    n_bytes = sum(item["expected_bytes"] for item in items if item["component"] == "compute")
    return image["tokens"] + image["extra_tokens"], n_bytes


def table() -> None:
    """Print tokens and encoder memory of the six models at five sizes."""
    print("| model |", " | ".join(f"{width}x{width * 3 // 4}" for width in SHOWN), "|")
    print("|---|", "|".join("--:" for _ in SHOWN), "|", sep="")
    for model in COLORS:
        cells = [at(model, width) for width in SHOWN]
        print(f"| {model} |", " | ".join(f"{tokens}, {n_bytes / MIB:.0f} MiB" for tokens, n_bytes in cells), "|")


def panel(x: float, title: str, series: dict[str, list[float]], marks: list[int], *, doubling: bool) -> list[str]:
    """Return one plot: a line per model over the image's width, with ``marks`` on a linear or a doubling scale."""

    def height(value: float) -> float:
        low, top, here = (math.log2(max(n, 1)) if doubling else n for n in (marks[0], marks[-1], value))
        return TOP + HIGH - HIGH * (here - low) / (top - low)

    across = [x + WIDE * width / WIDTHS[-1] for width in WIDTHS]
    body = [text(x, TOP - 18, title, size=13)]
    for mark in marks:
        body += [line([(x, height(mark)), (x + WIDE, height(mark))], color=FAINT)]
        body += [text(x - 6, height(mark) + 4, str(mark), anchor="end")]
    body += [text(x + WIDE * w / WIDTHS[-1], TOP + HIGH + 16, str(w), anchor="middle") for w in TICKS]
    for model, values in series.items():
        points = [(left, height(value)) for left, value in zip(across, values, strict=True)]
        body.append(line(points, color=COLORS[model], width=2))
    return body


def draw() -> str:
    """Return both panels and the legend."""
    tokens = {model: [float(at(model, width)[0]) for width in WIDTHS] for model in COLORS}
    memory = {model: [at(model, width)[1] / MIB for width in WIDTHS] for model in COLORS}
    second = LEFT + WIDE + 80
    body = panel(LEFT, "tokens of one image", tokens, [0, 1000, 2000, 3000, 4000, 5000], doubling=False)
    marks = [16 << power for power in range(8)]
    body += panel(second, "encoder's compute buffer, MiB (each line doubles)", memory, marks, doubling=True)
    body.append(text(LEFT, TOP + HIGH + 34, "width of a 4:3 image in pixels; llama.cpp, flash attention auto"))
    for index, (model, color) in enumerate(COLORS.items()):
        x, y = LEFT + 260 * (index % 3), TOP + HIGH + 56 + 18 * (index // 3)
        body += [line([(x, y - 4), (x + 22, y - 4)], color=color, width=3), text(x + 28, y, model)]
    return picture(second + WIDE + 20, TOP + HIGH + 88, "Tokens and encoder memory against resolution", body)


if __name__ == "__main__":
    (ROOT / "docs" / "vision.svg").write_text(draw(), encoding="utf-8")
