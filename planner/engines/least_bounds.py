"""The smallest and largest value of a linear form over all non-negative solutions of bounded equations.

Small and exact: up to three unknowns and sixteen rows, by visiting the corners in whole fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

Vector = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """``low <= features · unknowns <= high``; ``high`` None: no upper bound."""

    features: Vector
    low: Fraction
    high: Fraction | None


def corners(rows: Sequence[Row], n_unknowns: int) -> list[Vector]:
    """Return the corners of the region that all rows and non-negative unknowns leave; none if they contradict."""
    planes = _planes(rows, n_unknowns)
    found = []
    for chosen in combinations(planes, n_unknowns):
        point = _solve([plane[0] for plane in chosen], [plane[1] for plane in chosen])
        if point is not None and _inside(point, rows):
            found.append(point)
    return list(dict.fromkeys(found))


def bounds(points: Sequence[Vector], features: Vector) -> tuple[Fraction, Fraction]:
    """Return the smallest and largest ``features · point``."""
    values = [_dot(features, point) for point in points]
    return min(values), max(values)


def least_squares(rows: Sequence[Row], n_unknowns: int) -> Vector:
    """Return the unknowns with the least squared error at the middle of the bounded rows, the shortest of equals."""
    known = [row for row in rows if row.high is not None]
    ridge = Fraction(1, 10**9)
    matrix = [
        [
            sum((r.features[i] * r.features[j] for r in known), Fraction(0)) + (ridge if i == j else 0)
            for j in range(n_unknowns)
        ]
        for i in range(n_unknowns)
    ]
    right = [sum((r.features[i] * _middle(r) for r in known), Fraction(0)) for i in range(n_unknowns)]
    return _solve([tuple(line) for line in matrix], right) or (Fraction(0),) * n_unknowns


def _middle(row: Row) -> Fraction:
    return (row.low + (row.high if row.high is not None else row.low)) / 2


def _planes(rows: Sequence[Row], n_unknowns: int) -> list[tuple[Vector, Fraction]]:
    axes = [tuple(Fraction(int(i == j)) for j in range(n_unknowns)) for i in range(n_unknowns)]
    planes = [(axis, Fraction(0)) for axis in axes]
    planes += [(row.features, row.low) for row in rows]
    return planes + [(row.features, row.high) for row in rows if row.high is not None]


def _dot(a: Vector, b: Vector) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def _inside(point: Vector, rows: Sequence[Row]) -> bool:
    if any(x < 0 for x in point):
        return False
    values = ((row, _dot(row.features, point)) for row in rows)
    return all(row.low <= value and (row.high is None or value <= row.high) for row, value in values)


def _solve(matrix: Sequence[Vector], right: Sequence[Fraction]) -> Vector | None:
    """Return the solution by elimination with pivots, or None where there is no single one."""
    n = len(matrix)
    lines = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for column in range(n):
        pivot = next((i for i in range(column, n) if lines[i][column]), None)
        if pivot is None:
            return None
        lines[column], lines[pivot] = lines[pivot], lines[column]
        lines[column] = [value / lines[column][column] for value in lines[column]]
        for i in range(n):
            if i != column and lines[i][column]:
                factor = lines[i][column]
                lines[i] = [a - factor * b for a, b in zip(lines[i], lines[column], strict=True)]
    return tuple(line[n] for line in lines)
