"""Progress on stderr: a bar on a terminal, one plain line a case elsewhere."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def show_progress(task: str, items: Sequence[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """Yield the items and show how far the task is; ``name`` gives the prepared case id of an item."""
    if sys.stderr.isatty():
        yield from track(items, description=task, console=Console(stderr=True))
        return
    for number, item in enumerate(items, start=1):
        yield item
        print(f"{task}: {number}/{len(items)} {name(item)}", file=sys.stderr, flush=True)
