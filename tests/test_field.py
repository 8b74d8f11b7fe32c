"""Published measurements: asked again, nothing worse than the page says, nothing dropped, nothing above unexplained."""

import json
import sys
from functools import cache
from pathlib import Path

from field_cases import asked, compare, left_out, published

DOCS = Path(__file__).parents[1] / "docs"
RECORDED = json.loads((DOCS / "published.json").read_text())
sys.path.insert(0, str(DOCS))


@cache
def rows():
    """Every figure, asked once."""
    return tuple(compare())


def key(one):
    """What one figure is called in both lists."""
    return (one["case"], one["part"], one["term"], one["where"])


def test_every_case_is_asked_or_has_a_reason():
    """No published measurement is dropped silently, and none is both asked and left out."""
    those = {case["id"] for case in asked()}
    assert those | set(left_out()) == set(published())
    assert not those & set(left_out())
    assert all(left_out().values())


def test_no_recorded_figure_has_worsened():
    """Each error is at most what is recorded, and what was inside its interval still is."""
    from published import record

    recorded = {key(one): one for one in RECORDED}
    now = {key(one): one for one in map(record, rows())}
    assert now.keys() == recorded.keys()
    for name, one in now.items():
        assert abs(one["error"]) <= abs(recorded[name]["error"]) + 1e-6, one
        assert one["verdict"] == "inside" or recorded[name]["verdict"] != "inside", one


def test_weights_and_cache_within_three_percent():
    """Median error of weights and cache is 3 % or less (it is far less), and no single one is further off than 2 %."""
    from published import record, summary

    found = summary(map(record, rows()))
    assert found["figures"] >= 90
    assert found["median_error"] <= 0.001
    assert found["worst_error"] <= 0.02


def test_nothing_outside_is_unexplained():
    """A total outside its interval says why; above the high bound, none without an explanation."""
    for row in rows():
        if row.is_total and not row.inside:
            assert row.why, row


def test_later_logs_keep_their_first_verdict():
    """Every total of a log found later says what came out before anything was changed because of it."""
    later = {case["id"]: case for case in asked() if published()[case["id"]].get("request")}
    starts = {(row.case, row.part) for row in rows() if row.case in later and "as given" not in row.part}
    totals = [row for row in rows() if row.is_total and row.case in later]
    assert len(starts) >= 15
    assert all(row.first in {"inside", "above", "below"} for row in totals)
