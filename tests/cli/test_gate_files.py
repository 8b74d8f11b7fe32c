"""Gates over files with several deployments: none may be passed over."""

import contextlib
import io
import json

import pytest

from planner.cli import main

FITS = "model: qwen2.5-vl-7b\nquantization: Q4_K_M\nmachine: {gpus: [{name: RTX 3060}], ram: 32GiB}\n"
DOES_NOT = "model: qwen2.5-vl-7b\nquantization: Q4_K_M\nmachine: {ram: 2GiB}\n"


def check(path, *words):
    """Return the exit code and the checks of ``vlplan check PATH``."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main(["check", str(path), "--format", "json", *words])
    return stop.value.code, json.loads(out.getvalue())["checks"]


@pytest.mark.parametrize("separator", ["---\n", "--- \n", "---  # the second\n"])
def test_every_document_of_a_file_is_judged(tmp_path, separator):
    """A second document is judged whatever stands on the line that separates it, and decides the exit code."""
    path = tmp_path / "gate.yaml"
    path.write_text(FITS + separator + DOES_NOT)
    code, checks = check(path)
    assert code == 3
    assert [one["answer"]["verdict"] for one in checks] == ["fits", "does_not_fit"]


def test_a_list_under_requests_is_judged_whole(tmp_path):
    """Requests may stand in one list as well."""
    path = tmp_path / "gate.yaml"
    requests = [{"model": "llava-1.6-7b", "machine": {"ram": ram}} for ram in ("64GiB", "1GiB")]
    path.write_text(json.dumps({"requests": requests}))
    code, checks = check(path)
    assert (code, len(checks)) == (3, 2)
