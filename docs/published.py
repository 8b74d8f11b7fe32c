"""Writes ``docs/published.json``: published measurements, predicted beside measured; a section of the accuracy page.

``python docs/published.py`` asks every case again, a few seconds, and ``python docs/accuracy.py --page`` writes the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from field_cases import HOLDS, Row, compare, left_out, published  # noqa: E402 - the path is set above

FIGURES = ROOT / "docs" / "published.json"
TERMS = {"weights": "weights", "kv_cache": "cache", "tokens": "tokens in the cache", **HOLDS}
KEPT = (
    *("case", "part", "engine", "source", "term", "where", "fork", "fitted"),
    *("low", "expected", "high", "as_read", "why", "first"),
)
INTRODUCTION = """\
Memory that users and maintainers published (issues, pull requests, READMEs, logs), each asked through the public request
schema (`python docs/published.py`); the cases stand in `tests/data/field_memory.yaml.gz`, how each is asked and
what had to be read from its other figures in `tests/data/field_requests.yaml`. Logs found later stand whole in
`tests/data/field_later.yaml`, with the verdict of the first asking, before anything was changed because of them. The
engines' own estimates are not measurements and are not here. Sizes in MiB."""


def record(row: Row) -> dict[str, Any]:
    """Return one figure as the JSON keeps it."""
    return {
        **{key: getattr(row, key) for key in KEPT},
        "measured": round(row.measured),
        "rounding": round(row.rounding),
        "total": row.is_total,
        "error": round(row.error, 6),
        "verdict": "inside" if row.inside else "above" if row.above else "below",
    }


def summary(records: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that were asked for: median error of weights and cache, share of totals inside, above."""
    rows = list(records)
    errors = [abs(row["error"]) for row in rows if not row["total"]]
    totals = [row for row in rows if row["total"]]
    return {
        "figures": len(errors),
        "median_error": median(errors),
        "worst_error": max(errors),
        "totals": len(totals),
        "inside": sum(row["verdict"] == "inside" for row in totals),
        "above": sum(row["verdict"] == "above" for row in totals),
        "fitted": sum(row["fitted"] for row in totals),
        "first": sum(bool(row["first"]) for row in totals),
        "first_inside": sum(row["first"] == "inside" for row in totals),
        "first_above": sum(row["first"] == "above" for row in totals),
        "fitted_inside": sum(row["fitted"] and row["verdict"] == "inside" for row in totals),
        "cases": len({row["case"] for row in rows}),
    }


def section(records: list[dict[str, Any]]) -> list[str]:
    """Return the summary, the totals, weights and cache, and what is left out, as lines."""
    return [
        "## Published measurements",
        "",
        INTRODUCTION,
        "",
        *_summary_lines(summary(records)),
        "",
        "### Totals",
        "",
        "| case | engine | what | on | predicted | measured | | why, and what was read from the case |",
        "|---|---|---|---|--:|--:|---|---|",
        *(_total_line(row) for row in records if row["total"]),
        "",
        "### Weights and cache",
        "",
        "Runs of forks are marked: files and caches are the same there, graphs are not, so their totals are not compared.",
        "",
        "| case | engine | what | on | predicted | measured | error | read from the case |",
        "|---|---|---|---|--:|--:|--:|---|",
        *(_figure_line(row) for row in records if not row["total"]),
        "",
        "### Published, and not asked",
        "",
        "| case | engine | source | why not |",
        "|---|---|---|---|",
        *(f"| {case} | {published()[case]['engine']} | {_source(case)} | {why} |" for case, why in left_out().items()),
        "",
        "### Sources of the cases asked",
        "",
        *(f"- {case}: {_source(case)}" for case in dict.fromkeys(row["case"] for row in records)),
    ]


def _summary_lines(figures: dict[str, float]) -> list[str]:
    share = 100 * figures["inside"] / figures["totals"]
    others, n_others = (figures[key] - figures[f"fitted{end}"] for key, end in (("inside", "_inside"), ("totals", "")))
    inside = f"{figures['inside']:.0f} of {figures['totals']:.0f}"
    median_error, worst_error = (f"{100 * figures[key]:.2f} %" for key in ("median_error", "worst_error"))
    return [
        f"- {figures['cases']:.0f} of {len(published())} cases can be asked; {len(left_out())} are listed with the reason.",
        f"- Weights and cache, {figures['figures']:.0f} figures: median error {median_error}, worst {worst_error}.",
        f"- Totals: {inside} ({share:.0f} %) inside the interval, {figures['above']:.0f} above it, each explained.",
        f"- For {figures['fitted']:.0f} totals the interval was mended or narrowed with the very log, so they prove",
        f"  nothing; of the others {others:.0f} of {n_others:.0f} ({100 * others / n_others:.0f} %) are inside. They are marked.",
        _first_line(figures),
    ]


def _first_line(figures: dict[str, float]) -> str:
    share = 100 * figures["first_inside"] / figures["first"]
    of = f"{figures['first_inside']:.0f} of {figures['first']:.0f} totals of logs found later ({share:.0f} %)"
    return f"- When first asked, {of} were inside and {figures['first_above']:.0f} above."


def _total_line(row: dict[str, Any]) -> str:
    span = f"{_size(row['low'])} ... {_size(row['high'])}"
    what, verdict = TERMS[row["term"]], f"{row['verdict']}, mended" if row["fitted"] else row["verdict"]
    verdict += f" (first {row['first']})" if row["first"] else ""
    why = "; ".join(text for text in (row["why"], row["as_read"]) if text)
    return f"| {_name(row)} | {row['engine']} | {what} | {row['where']} | {span} | {_size(row['measured'])} | {verdict} | {why} |"


def _figure_line(row: dict[str, Any]) -> str:
    size = str if row["term"] == "tokens" else _size
    error = f"{100 * row['error']:+.2f} %"
    engine = f"{row['engine']} (fork)" if row["fork"] else row["engine"]
    values = f"{size(row['expected'])} | {size(row['measured'])} | {error}"
    return f"| {_name(row)} | {engine} | {TERMS[row['term']]} | {row['where']} | {values} | {row['as_read']} |"


def _name(row: dict[str, Any]) -> str:
    return f"{row['case']}, {row['part']}" if row["part"] else str(row["case"])


def _source(case: str) -> str:
    return str(published()[case]["source"]).replace("|", "/")


def _size(n_bytes: float) -> str:
    return f"{n_bytes / (1 << 20):.1f}"


if __name__ == "__main__":
    FIGURES.write_text(json.dumps([record(row) for row in compare()], indent=1) + "\n", encoding="utf-8")
