"""The same function of many tasks, worked on by as many processes as there are processors, answers in order."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from planner.detect.host import usable_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

Task = TypeVar("Task")
Answer = TypeVar("Answer")
MAX_PROCESSES = 16


def in_processes(function: Callable[[Task], Answer], tasks: Iterable[Task]) -> Iterator[Answer]:
    """Yield ``function``'s answer to each task in order; a few tasks are read ahead, never all of them.

    ``function`` and the tasks must be such that another process can be told them. Where processes cannot be had or
    die, the work is done in this one.
    """
    n_processes = min(MAX_PROCESSES, usable_threads(Path("/")))
    if n_processes < 2:
        yield from map(function, tasks)
        return
    with ProcessPoolExecutor(n_processes) as pool:
        waiting: deque[tuple[Task, Future[Answer] | None]] = deque()
        for task in tasks:
            waiting.append((task, _submitted(pool, function, task)))
            if len(waiting) > 2 * n_processes:
                yield _answer(function, *waiting.popleft())
        while waiting:
            yield _answer(function, *waiting.popleft())


def _submitted(pool: ProcessPoolExecutor, function: Callable[[Task], Answer], task: Task) -> Future[Answer] | None:
    try:
        return pool.submit(function, task)
    except (BrokenProcessPool, OSError):
        return None


def _answer(function: Callable[[Task], Answer], task: Task, future: Future[Answer] | None) -> Answer:
    try:
        return function(task) if future is None else future.result()
    except BrokenProcessPool:
        return function(task)
