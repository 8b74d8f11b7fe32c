"""Answers given before: a small memory for functions of one large value, which searches ask again and again."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Answer = TypeVar("Answer")
Value = TypeVar("Value")
Rest = ParamSpec("Rest")
SIZE = 2048


def remembered(function: Callable[Concatenate[Value, Rest], Answer]) -> Callable[Concatenate[Value, Rest], Answer]:
    """Let ``function`` keep its last ``SIZE`` answers, its first argument told by identity, the others by value.

    For functions of a language or a tower, which are large and hold mappings. What is returned is shared.
    """
    answers: dict[Hashable, tuple[Value, Answer]] = {}

    @wraps(function)
    def answer(value: Value, /, *rest: Rest.args, **named: Rest.kwargs) -> Answer:
        key = (id(value), rest, *named.items())
        known = answers.get(key)
        if known is None:
            while len(answers) >= SIZE:
                answers.pop(next(iter(answers)))
            # holding the value keeps its identity from being given to another one
            known = answers[key] = value, function(value, *rest, **named)
        return known[1]

    return answer
