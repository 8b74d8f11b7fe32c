"""The documents: commands parse, links lead somewhere, pictures are what the scripts draw, nothing private shows."""

import ast
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from planner.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"(?ms)^```(?:sh|console|bash)\n(.*?)^```")
FORBIDDEN = re.compile(r"/(?:tmp|home)/|/root/(?!\.)|file://|localhost:\d", re.IGNORECASE)
CODE = [ROOT / "planner", DOCS]
MAIN = "from planner.cli import main; main()"


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    """Documents name files from the repository's root, and their scripts lie in docs."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(DOCS))


def lines_of(block):
    """Yield the commands of a shell block, continued lines joined, comments left out."""
    for line in block.replace("\\\n", " ").splitlines():
        command = line.removeprefix("$ ").strip()
        for part in re.split(r"&&|\|\|", command) if "--" not in shlex.split(command, comments=True) else [command]:
            words = shlex.split(part, comments=True)
            if words and words[0].rsplit("/", 1)[-1] == "vlplan":
                yield words[1:]


def shown_commands():
    """Return every vlplan command of a page's shell blocks, as (page, words)."""
    found = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            is_console = block.startswith("$ ")
            text = "\n".join(line for line in block.splitlines() if line.startswith("$ ")) if is_console else block
            found += [(page.name, words) for words in lines_of(text)]
    return found


COMMANDS = shown_commands()


def test_there_are_commands_to_check():
    """The pages show commands of most kinds, and the search for them finds them."""
    assert len(COMMANDS) > 40
    assert {words[0] for _, words in COMMANDS if words} >= {
        "recommend",
        "estimate",
        "limits",
        "tokens",
        "check",
        "sweep",
    }


@pytest.mark.parametrize("words", [pytest.param(w, id=f"{page}:{' '.join(w)[:60]}") for page, w in COMMANDS])
def test_commands_parse(words):
    """Every command shown is one that the program has, with options that it knows."""
    if words[0].startswith("-"):
        return
    command = app.get_command(None, words[0])
    assert command is not None, words[0]
    if "--help" in words:
        return
    arguments = words[1 : words.index(">")] if ">" in words else words[1:]
    with (
        click.Context(app, info_name="vlplan") as parent,
        command.make_context(words[0], arguments, parent=parent) as made,
    ):
        assert made.params is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_resolve(page):
    """A link within the documents leads to a page or picture that is there, and to a heading that exists."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, heading = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        if heading:
            heads = re.findall(r"(?m)^#+ (.*)$", other.read_text(encoding="utf-8"))
            assert heading in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_the_index_knows_every_page():
    """No page is out of a reader's reach: the index links them all."""
    linked = set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} <= linked


@pytest.mark.parametrize(
    "path",
    sorted([*PAGES, *DOCS.glob("*.svg"), *(DOCS / "examples").iterdir(), *DOCS.glob("*.py")]),
    ids=lambda path: path.name,
)
def test_nothing_private_shows(path):
    """No page holds a path or host of the computer that built it."""
    found = FORBIDDEN.search(path.read_text(encoding="utf-8"))
    assert found is None, found and found.group()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_shown_answers_are_of_described_machines(page):
    """An answer on a page says SIMULATED: no page depends on the computer that built it."""
    for block in re.findall(r"(?ms)^```console\n(.*?)^```", page.read_text(encoding="utf-8")):
        if re.search(r"(?m)^(FITS|DOES NOT FIT|FITS WITH CHANGES|UNKNOWN|WILL NOT LOAD):", block):
            assert "SIMULATED" in block, block[:200]


def modules():
    """Return every Python file of the package and of the documents."""
    return sorted(path for folder in CODE for path in folder.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path):
    """Each module begins with a sentence about what it is."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, path
    assert text.splitlines()[0].rstrip().endswith((".", ":", "?", ")")) or "\n" in text, path


@pytest.mark.parametrize(("script", "drawn"), [("arena", "arena.svg"), ("vision_plot", "vision.svg")])
def test_pictures_are_what_the_scripts_draw(script, drawn):
    """A committed picture is what its script draws today: the figures in it are the program's."""
    assert importlib.import_module(script).draw() == (DOCS / drawn).read_text(encoding="utf-8")


def test_the_screen_is_what_the_program_prints():
    """The picture of a screen shows the program's output of today."""
    assert importlib.import_module("screen_picture").draw() == (DOCS / "screen.svg").read_text(encoding="utf-8")


def test_the_arena_picture_adds_up():
    """The highest rectangle of the worked example ends where the arena does, and equals the plan's compute buffer."""
    import planner

    n_bytes, blocks = importlib.import_module("arena").blocks()
    assert max(-(-(block.address + block.n_bytes) // 128) * 128 for block in blocks) == n_bytes
    request = {"model": "qwen2.5-vl-7b", "quantization": "Q4_K_M", "workload": {"context": 8192}}
    answer = planner.estimate(request, machine={"gpus": [{"name": "RTX 3060"}], "ram": "32GiB"})
    items = answer["devices"][0]["items"]
    (item,) = (i for i in items if i["component"] == "compute" and i["part"] == "language")
    assert item["expected_bytes"] == n_bytes


def test_the_api_example_runs():
    """The example of the API page does what it says."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"(?ms)<!-- example -->\n```python\n(.*?)^```", text)
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = done.stdout.strip().splitlines()
    assert "llama-server" in first
    assert "context" in second


def newcomer_commands():
    """Return the five commands of the newcomer's path."""
    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?ms)<!-- five commands -->\n```sh\n(.*?)^```", text)
    return block.strip().splitlines()


def test_five_commands_lead_to_a_page_and_a_failing_gate(tmp_path):
    """From a clone to a committed capacity page and a gate that fails: the page's own commands, but for the install.

    This checkout stands in for the address, and this interpreter for the virtual environment of the second command.
    """
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone, install, *rest = newcomer_commands()
    assert clone == "git clone ADDRESS vlplan && cd vlplan"
    assert "-m venv .venv" in install
    assert len(rest) == 3
    folder = tmp_path / "vlplan"
    subprocess.run([git, "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)
    identity = "git -c user.name=a -c user.email=a@example.org commit --quiet"
    here = f"{shlex.quote(sys.executable)} -c {shlex.quote(MAIN)}"
    codes = []
    for command in rest:
        line = command.replace(".venv/bin/vlplan", here).replace("git commit", identity)
        done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S602
        codes.append((done.returncode, done.stderr))
    assert [code for code, _ in codes] == [0, 0, 4], codes
    listed = subprocess.run([git, "ls-files", "capacity.md"], cwd=folder, capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "capacity.md"
    assert "| RTX 3070 | " in (folder / "capacity.md").read_text().replace("  ", " ").replace("  ", " ")
    assert "::warning" in done.stdout


def test_the_workflow_runs_a_gate_that_parses():
    """The GitHub Actions example is YAML, and its last step is a command that the program has."""
    data = yaml.safe_load((DOCS / "examples" / "github-actions.yaml").read_text())
    *_, step = data["jobs"]["fits"]["steps"]
    _, name, *words = shlex.split(step["run"])
    command = app.get_command(None, name)
    with click.Context(app) as parent, command.make_context(name, words, parent=parent) as made:
        assert made.params["output"] == "github"


def test_the_init_container_judges_what_the_container_runs():
    """The Kubernetes example asks about the container's own model and settings, and gets a GPU to look at."""
    data = yaml.safe_load((DOCS / "examples" / "kubernetes-gate.yaml").read_text())
    pod = data["spec"]["template"]["spec"]
    (gate,), (server,) = pod["initContainers"], pod["containers"]
    assert gate["args"][2:] == server["args"][1:]
    assert gate["resources"] == server["resources"]
    words = [*gate["command"][1:-1], "--gpu", "RTX 3090", "--ram", "64GiB", "--format", "json", "--", *gate["args"]]
    done = subprocess.run([sys.executable, "-c", MAIN, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (check,) = json.loads(done.stdout)["checks"]
    assert check["answer"]["engine"] == "vllm"


def test_an_engine_without_a_command_shows_none():
    """Where there is nothing to paste, the screen does not announce it."""
    from commands import run

    text, code = run("vlplan estimate docs/examples/measured-four-points.yaml --engine measured --gpu T4 --ram 32GiB")
    assert code == 0
    assert "FITS" in text
    assert "Run:" not in text


@pytest.mark.parametrize(
    ("points", "dtype", "batch", "holding"),
    [
        ("vision-model", "fp32", 1, {"RTX 3090", "A10G", "L4"}),
        ("vision-model", "fp32", 2, set()),
        ("vision-model", "fp16", 1, {"T4", "RTX 3090", "A10G", "L4"}),
        ("vision-model", "fp16", 2, {"RTX 3090", "A10G", "L4"}),
        ("four-points", "fp32", 1, {"T4", "RTX 3090", "A10G", "L4"}),
        ("four-points", "fp32", 2, {"RTX 3090"}),
        ("four-points", "fp16", 2, {"T4", "RTX 3090", "A10G", "L4"}),
    ],
)
def test_the_cookbook_says_which_card_holds_the_measured_model(points, dtype, batch, holding):
    """The sentences of the cookbook's fifth section are what the program answers."""
    import planner

    cards = ("T4", "RTX 3090", "A10G", "L4", "RTX 3070")
    request = {
        "model": f"docs/examples/measured-{points}.yaml",
        "engine": "measured",
        "settings": {"dtype": dtype},
        "workload": {"batch": batch},
    }
    verdicts = {
        card: planner.estimate(request, machine={"gpus": [{"name": card}], "ram": "32GiB"})["verdict"] for card in cards
    }
    assert {card for card, verdict in verdicts.items() if verdict == "fits"} == holding


def test_the_tree_as_a_sentence_names_every_part():
    """The contributors' page leaves out no module or package of the top level."""
    text = (DOCS / "contributing.md").read_text(encoding="utf-8")
    tree = set(re.findall(r"\w+", re.findall(r"(?ms)^```\nplanner/\n(.*?)^```", text)[0]))
    parts = {
        path.stem for path in (ROOT / "planner").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__"} <= tree


def test_the_gates_of_the_page_answer():
    """What the page says can be judged is judged: the file with a change to make, and four that fit."""
    from commands import run

    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    block = FENCE.findall(text)[0]
    commands = [line.split("  #")[0] for line in block.splitlines()]
    assert [run(command)[1] for command in commands] == [4, 0, 0, 0, 0]
