"""Will this engine load that model? Answered from dated tables, before any arithmetic.

A table says what the releases of one engine hold, family by family. It is data; the functions here only read it:
which rows are meant, what they say of a version, and what else would load the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any, Literal

from planner.engines.engine import Support
from planner.engines.versions import Version, parse_version
from planner.frozen import dataclass

Verdict = Literal["supported", "unsupported", "remote_code", "unknown"]

TITLES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "lmdeploy": "LMDeploy",
    "lmdeploy-turbomind": "LMDeploy (TurboMind)",
    "lmdeploy-pytorch": "LMDeploy (PyTorch engine)",
    "transformers": "transformers",
    "ollama": "Ollama",
    "llama.cpp": "llama.cpp",
    "mlx-vlm": "mlx-vlm (Apple silicon)",
}
_OFFERED = (
    "ollama",
    "llama.cpp",
    "vllm",
    "sglang",
    "lmdeploy-turbomind",
    "lmdeploy-pytorch",
    "transformers",
    "mlx-vlm",
)
_MAX_ALTERNATIVES = 3
_BACKENDS = {"lmdeploy": ("lmdeploy-turbomind", "lmdeploy-pytorch")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportRow:
    """What the releases of one engine hold of one family. ``since`` may start with ``<=``: earlier not examined."""

    family: str
    architecture: str = ""
    verdict: Verdict
    since: str | None = None
    absent: str | None = None  # newest release examined without it, before ``since``
    until: str | None = None
    gone: str | None = None  # first release examined without it, after ``until``
    vision: bool = True
    basis: str = "registry"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportTable:
    """One engine's rows, with the newest release examined, the source they were read from and the day."""

    engine: str
    newest: str
    released: str
    checked: str
    source: str
    note: str
    rows: tuple[SupportRow, ...]
    numbered: Mapping[str, str] = field(default_factory=dict)  # release number -> first build that carries it


def support_table(data: Mapping[str, Any]) -> SupportTable:
    """Return the table that one file of ``profiles/engines/support`` holds."""
    rows = tuple(SupportRow(**row) for row in data["rows"])
    return SupportTable(**{**data, "rows": rows, "numbered": dict(data.get("numbered") or {})})


def loads(  # noqa: PLR0913 - the words a model may be known by
    tables: Mapping[str, SupportTable],
    engine: str,
    *,
    family: str = "",
    architecture_class: str | None = None,
    gguf_architecture: str | None = None,
    version: str | None = None,
) -> Support:
    """Return whether ``engine`` at ``version`` (default: the newest examined) loads the model.

    The family decides where the tables know it, else the class of the HF configuration, else the GGUF architecture.
    Where a file's family is only its architecture word, a row of a text model does not speak against its projector.

    Raises:
        UsageError: ``version`` is no version.
    """
    backends = _BACKENDS.get(engine, (engine,))
    own = {row.family for backend in backends if backend in tables for row in tables[backend].rows}
    families = (family,) if family in own else _families(tables, family, architecture_class, gguf_architecture)
    answers = [_one(tables, backend, families, version) for backend in backends]
    answer = next((a for a in answers if a.verdict in {"supported", "remote_code"}), None)
    if answer is None:
        answer = next((a for a in answers if a.verdict == "unknown"), answers[0])
        if len(answers) > 1:
            answer = replace(answer, reason="; ".join(a.reason for a in answers))
    if answer.verdict in {"supported", "remote_code"}:
        by_word = family == gguf_architecture and gguf_architecture is not None
        return replace(answer, vision=True) if by_word else answer
    return replace(answer, alternatives=_alternatives(tables, backends, families))


def sentence(support: Support) -> str:
    """Return the verdict as one line: the reason, and what to use instead."""
    if not support.alternatives:
        return support.reason
    *most, last = support.alternatives
    return f"{support.reason}; use {', '.join(most)}{' or ' if most else ''}{last}"


def _families(
    tables: Mapping[str, SupportTable], family: str, architecture_class: str | None, gguf: str | None
) -> tuple[str, ...]:
    known = {row.family for table in tables.values() for row in table.rows}
    if family in known:
        return (family,)
    if architecture_class:
        found = _holding(tables.values(), architecture_class)
        if found:
            return found
    word = gguf or family
    if word in known:
        return (word,)
    gguf_tables = [table for name, table in tables.items() if name in {"llama.cpp", "ollama"}]
    return _holding(gguf_tables, word) if word else ()


def _holding(tables: Iterable[SupportTable], word: str) -> tuple[str, ...]:
    """Families of the rows whose architecture names ``word`` (before the projector, where there is one)."""
    found = (row.family for table in tables for row in table.rows if word in _words(row.architecture))
    return tuple(dict.fromkeys(found))


def _words(architecture: str) -> set[str]:
    return set(architecture.partition("+")[0].replace("/", " ").replace("(", " ").split())


def _one(tables: Mapping[str, SupportTable], engine: str, families: tuple[str, ...], version: str | None) -> Support:
    title = TITLES.get(engine, engine)
    if version is not None:
        parse_version(version)
    table = tables.get(engine)
    if table is None:
        return Support(verdict="unknown", reason=f"no support table for {title}", backend=engine)
    rows = [row for row in table.rows if row.family in families]
    if not rows:
        return _support(table, None, "unknown", f"{title}: no row for this architecture (checked up to {table.newest})")
    answers = [_judge(table, row, version) for row in rows]
    verdicts = {answer.verdict for answer in answers}
    if len(verdicts) == 1:
        return answers[0]
    names = ", ".join(row.family for row in rows)
    return _support(table, None, "unknown", f"{title} loads some of {names} and not others; name the model's family")


def _judge(table: SupportTable, row: SupportRow, version: str | None) -> Support:
    """What the row says of one version; without one, of the newest release examined."""
    title, note = TITLES.get(table.engine, table.engine), f" ({row.note})" if row.note else ""
    if version is None:
        return _support(table, row, row.verdict, f"{_newest_reason(table, row, title)}{note}")
    at = _resolve(table, version)
    named = f"{title} {version}"
    early = _too_early(row, at)
    if early is not None:
        return _support(table, row, early, f"{named}: {_early_reason(row)}{note}")
    if row.until is not None and not at.within(parse_version(row.until)):
        return _support(table, row, _late_verdict(row, at), f"{named}: {_late_reason(row)}{note}")
    if row.until is not None and row.verdict == "unsupported":
        return _support(table, row, "supported", f"{named} loads it; {_late_reason(row)}{note}")
    return _support(table, row, row.verdict, f"{named}: {_plain_reason(row)}{note}")


def _resolve(table: SupportTable, version: str) -> Version:
    release = parse_version(version)
    for number, build in table.numbered.items():
        if release.numbers[:2] == parse_version(number).numbers[:2]:
            return parse_version(build)
    return release


def _too_early(row: SupportRow, at: Version) -> Verdict | None:
    """Before the first release known to load it: not there, or nobody looked."""
    if row.since is None or not at < parse_version(row.since.removeprefix("<=")):
        return None
    if row.absent is not None:
        return "unsupported" if at <= parse_version(row.absent) else "unknown"
    return "unknown" if row.since.startswith("<=") else "unsupported"


def _late_verdict(row: SupportRow, at: Version) -> Verdict:
    between = row.gone is not None and at < parse_version(row.gone) and at.stage == 0
    return "unknown" if between else "unsupported"


def _early_reason(row: SupportRow) -> str:
    since = (row.since or "").removeprefix("<=")
    if row.absent is not None:
        return f"not in {row.absent}, seen from {since} on"
    return f"not examined before {since}" if (row.since or "").startswith("<=") else f"supported from {since} on"


def _late_reason(row: SupportRow) -> str:
    if row.verdict == "remote_code":
        return f"the repository's own code is last reported to run on {row.until}"
    gone = f", gone in {row.gone}" if row.gone else ""
    return f"the last release that loads this architecture is {row.until}{gone}"


def _plain_reason(row: SupportRow) -> str:
    match row.verdict:
        case "supported":
            return "loads this architecture"
        case "remote_code":
            pin = f" and a release up to {row.until}" if row.until else ""
            return f"needs trust_remote_code{pin}"
        case "unknown":
            return "not established whether it loads this architecture"
        case "unsupported":
            return "does not load this architecture"


def _newest_reason(table: SupportTable, row: SupportRow, title: str) -> str:
    said = _late_reason(row) if row.until and row.verdict == "unsupported" else _plain_reason(row)
    return f"{title} {table.newest}: {said}"


def _support(table: SupportTable, row: SupportRow | None, verdict: Verdict, reason: str) -> Support:
    return Support(
        verdict=verdict,
        reason=reason,
        source=f"{table.source}{'' if row is None or row.basis == 'registry' else f' ({row.basis})'}",
        since=row.since if row else None,
        until=row.until if row else None,
        checked=f"{table.newest} of {table.released}, looked at {table.checked}",
        vision=row.vision if row else True,
        backend=table.engine,
    )


def _alternatives(
    tables: Mapping[str, SupportTable], engines: tuple[str, ...], families: tuple[str, ...]
) -> tuple[str, ...]:
    """What else loads it: an older release of the same engine first, then engines that load it today."""
    older = [f"{TITLES[e]} <= {_short(row.until)}" for e in engines for row in _rows(tables, e, families) if row.until]
    others = [e for e in _OFFERED if e not in engines and e in tables]
    today = [_named(e, rows) for e in others if (rows := _rows(tables, e, families)) and _all_load(rows)]
    return tuple(dict.fromkeys(older + today))[:_MAX_ALTERNATIVES]


def _rows(tables: Mapping[str, SupportTable], engine: str, families: tuple[str, ...]) -> list[SupportRow]:
    return [row for row in tables[engine].rows if row.family in families] if engine in tables else []


def _all_load(rows: list[SupportRow]) -> bool:
    return all(row.verdict in {"supported", "remote_code"} for row in rows)


def _named(engine: str, rows: list[SupportRow]) -> str:
    pinned = next((row.until for row in rows if row.verdict == "remote_code" and row.until), None)
    return f"{TITLES[engine]} <= {pinned}" if pinned else TITLES[engine]


def _short(version: str | None) -> str:
    return (version or "").removesuffix(".0")
