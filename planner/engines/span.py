"""A number of bytes that is bounded, and the budget items made of such numbers."""

from __future__ import annotations

from planner.budget import Basis, Component, Item, Part
from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Low, expected and high bytes."""

    low: int
    expected: int
    high: int

    def __add__(self, other: Span) -> Span:
        return Span(low=self.low + other.low, expected=self.expected + other.expected, high=self.high + other.high)

    def __sub__(self, other: Span) -> Span:
        return Span(low=self.low - other.low, expected=self.expected - other.expected, high=self.high - other.high)

    def scaled(self, low: float, expected: float, high: float) -> Span:
        """Return the span with each bound times its own factor."""
        return Span(low=int(self.low * low), expected=int(self.expected * expected), high=int(self.high * high))


def fixed(n_bytes: int) -> Span:
    """Return a span that is one number."""
    return Span(low=n_bytes, expected=n_bytes, high=n_bytes)


def largest(spans: list[Span]) -> Span:
    """Return the peak of phases that do not overlap."""
    return Span(
        low=max(span.low for span in spans),
        expected=max(span.expected for span in spans),
        high=max(span.high for span in spans),
    )


def span_item(  # noqa: PLR0913 - an item has that many columns
    component: Component,
    part: Part,
    span: Span,
    *,
    basis: Basis,
    formula: str,
    source: str,
    resident_bytes: int | None = None,
    **inputs: float | str,
) -> Item:
    """Return an item with the span's bounds; what stands after load is the expected number unless said."""
    return Item(
        component=component,
        part=part,
        resident_bytes=span.expected if resident_bytes is None else resident_bytes,
        low_bytes=span.low,
        expected_bytes=span.expected,
        high_bytes=span.high,
        basis=basis,
        formula=formula,
        source=source,
        inputs=inputs,
    )
