"""Verdicts of a gate: text, JSON, JUnit XML, GitHub annotations, SARIF 2.1.0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from planner.questions.check import Check
from planner.report.answer import answer
from planner.report.screen import plan_screen

_PASSED = frozenset({"fits", "fits_with_changes"})
_RULES = {
    "does_not_fit": "The deployment needs more memory than is free",
    "will_not_load": "The engine refuses the model or the settings",
    "unknown": "The memory could not be computed",
    "fits_with_changes": "The deployment fits only with changes",
    "warning": "A setting does nothing, or does harm",
}


def render(checks: Sequence[Check], output: str, width: int = 80) -> str:
    """Return the checks in one of the formats text, json, junit, github and sarif."""
    if output == "json":
        return json.dumps({"schema": 1, "checks": [_mapping(check) for check in checks]}, indent=2)
    if output == "junit":
        return junit(checks)
    if output == "github":
        return "\n".join(line for check in checks for line in _annotations(check))
    if output == "sarif":
        return json.dumps(sarif(checks), indent=2)
    return "\n\n".join(_text(check, width) for check in checks)


def _text(check: Check, width: int) -> str:
    warnings = [f"warning: {warning}" for warning in check.warnings]
    return "\n".join([f"== {check.name}", *warnings, plan_screen(check.plan, width)])


def _mapping(check: Check) -> dict[str, object]:
    return {"name": check.name, "warnings": list(check.warnings), "answer": answer(check.plan)}


def _sentence(check: Check) -> str:
    plan = check.plan
    changes = [f"Change: {'; '.join(plan.changes)}."] if plan.changes else []
    details = [*changes, *plan.reasons]
    return f"{plan.model.name} on {plan.engine} {plan.engine_version}: {plan.verdict.replace('_', ' ')}" + (
        f". {' '.join(details)}" if details else ""
    )


def junit(checks: Sequence[Check]) -> str:
    """Return a JUnit test suite with one case per deployment."""
    failures = sum(check.plan.verdict not in _PASSED for check in checks)
    suite = ET.Element("testsuite", name="vlplan check", tests=str(len(checks)), failures=str(failures), errors="0")
    for check in checks:
        case = ET.SubElement(suite, "testcase", classname="vlplan", name=check.name)
        if check.plan.verdict not in _PASSED:
            failure = ET.SubElement(case, "failure", type=check.plan.verdict, message=_sentence(check))
            failure.text = plan_screen(check.plan)
        elif check.plan.changes or check.warnings:
            ET.SubElement(case, "system-out").text = "\n".join([*check.plan.changes, *check.warnings])
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode")


def _annotations(check: Check) -> list[str]:
    """Return workflow commands; data is escaped as GitHub wants it."""
    level = {"fits": "notice", "fits_with_changes": "warning"}.get(check.plan.verdict, "error")
    title = _property(f"vlplan: {check.name}")
    lines = [f"::{level} title={title}::{_data(_sentence(check))}"]
    return lines + [f"::warning title={title}::{_data(warning)}" for warning in check.warnings]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def sarif(checks: Sequence[Check]) -> dict[str, object]:
    """Return a SARIF 2.1.0 log with one result per deployment that does not simply fit, and per warning."""
    results = [_result(check.plan.verdict, _sentence(check), check.name) for check in checks if _notable(check)]
    results += [_result("warning", warning, check.name) for check in checks for warning in check.warnings]
    driver = {
        "name": "vlplan",
        "rules": [{"id": key, "shortDescription": {"text": text}} for key, text in _RULES.items()],
    }
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }


def _notable(check: Check) -> bool:
    return check.plan.verdict != "fits"


def _result(rule: str, text: str, name: str) -> dict[str, object]:
    level = "warning" if rule in ("fits_with_changes", "warning") else "error"
    location = {"logicalLocations": [{"fullyQualifiedName": name}]}
    return {"ruleId": rule, "level": level, "message": {"text": text}, "locations": [location]}
