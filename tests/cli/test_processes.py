"""Work shared between processes comes back in order and is never lost."""

from __future__ import annotations

import os

import pytest

from planner.cli import processes
from planner.cli.processes import in_processes


def squared(number: int) -> int:
    """Return the square."""
    return number * number


def fatal(number: int) -> tuple[int, bool]:
    """Die in any process but the first one."""
    if os.getpid() != FIRST:
        os._exit(9)
    return squared(number), True


FIRST = os.getpid()


@pytest.mark.parametrize("n_threads", [1, 2, 64])
def test_answers_come_in_order(monkeypatch: pytest.MonkeyPatch, n_threads: int):
    """However many processors there are."""
    monkeypatch.setattr(processes, "usable_threads", lambda _: n_threads)
    assert list(in_processes(squared, range(40))) == [squared(number) for number in range(40)]


def test_tasks_are_not_read_far_ahead(monkeypatch: pytest.MonkeyPatch):
    """An endless input is answered as it comes."""
    monkeypatch.setattr(processes, "usable_threads", lambda _: 2)
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield read[-1]

    answers = in_processes(squared, endless())
    assert [next(answers) for _ in range(3)] == [0, 1, 4]
    assert len(read) < 10
    answers.close()


def test_what_a_dying_process_leaves_is_done_here(monkeypatch: pytest.MonkeyPatch):
    """No answer is lost when the processes are killed."""
    monkeypatch.setattr(processes, "usable_threads", lambda _: 2)
    assert list(in_processes(fatal, range(10))) == [(squared(number), True) for number in range(10)]
