"""The capacity page opens in a browser with no request to the network and nothing to complain about."""

import shutil
import subprocess

import pytest

from planner.machine_file import machine_of
from planner.questions.sweep import Grid, sweep
from planner.report.sweep import render

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_page_opens_without_network_or_error(tmp_path):
    """Headless Chromium renders the page with every host unreachable, and logs no console message."""
    boxes = tuple((name, machine_of({"gpus": [{"name": name}], "ram": "64GiB"})) for name in ("RTX 3070", "RTX 3090"))
    cells = sweep(
        Grid(
            models=("gemma-3-4b", "qwen2.5-vl-3b"),
            quantizations=("Q4_K_M",),
            images=("640x480", "1920x1080"),
            batches=(1,),
            contexts=(4096,),
            machines=boxes,
        )
    )
    page = tmp_path / "capacity.html"
    page.write_text(render(list(cells), "html"))
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1200,1600",
        f"--screenshot={tmp_path / 'page.png'}",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr
    assert "http" not in page.read_text().replace("http://www.w3.org", "")
