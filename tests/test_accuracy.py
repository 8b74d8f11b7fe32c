"""The accuracy page tells the truth: a sample of every table is asked again, and no figure may have worsened."""

import json
import sys
from pathlib import Path

import pytest
from accuracy_rows import compare_random, compare_text, compare_tokens, compare_transformers, compare_vision

DOCS = Path(__file__).parents[1] / "docs"
RECORDED = {
    (record["table"], record["term"], record["setting"]): record
    for record in json.loads((DOCS / "accuracy.json").read_text())
}
SAMPLES = {
    "text": lambda: compare_text("llamacpp_text", start=11, step=97),
    "text 2026": lambda: compare_text("llamacpp_text_2026", start=7, step=97),
    "random": lambda: compare_random(start=5, step=41),
    "vision": lambda: compare_vision("llamacpp_vision", start=3, step=19),
    "vision 2026": lambda: compare_vision("llamacpp_vision_2026", start=3, step=19),
    "transformers": lambda: compare_transformers(start=2, step=9),
    "transformers, further families": lambda: compare_transformers("transformers_families", start=3, step=13),
    "tokens": lambda: compare_tokens(start=1, step=7),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_no_recorded_figure_has_worsened(name):
    """In a sample of the table nothing is worse than the page says: exactness, worst error, high bound."""
    n_rows = 0
    for one in SAMPLES[name]():
        recorded = RECORDED[one.table, one.term, one.setting]
        assert abs(one.error) <= recorded["worst"] + 1e-12, one
        assert one.high >= one.truth or recorded["high_below_truth"], one
        n_rows += 1
    assert n_rows > 10


def test_the_page_is_made_from_the_figures():
    """The page is what the script writes from the recorded figures."""
    sys.path.insert(0, str(DOCS))
    from accuracy import page

    assert (DOCS / "accuracy.md").read_text() == page(json.loads((DOCS / "accuracy.json").read_text()))


def test_the_figures_asked_for_are_reached():
    """Weights and cache of language models are exact in every row; no high bound is below the truth anywhere."""
    for (table, term, _), record in RECORDED.items():
        assert record["high_below_truth"] == 0, record
        if table.startswith("llamacpp_text") and term in ("weights", "cache"):
            assert record["exact"] == record["rows"], record
        if term in ("image tokens", "projector weights") or table == "llamacpp_random":
            assert record["exact"] == record["rows"], record
