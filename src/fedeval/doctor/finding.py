"""One line of ``medperf doctor``: what was measured, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from fedeval.errors import FedevalError
from fedeval.log import LOGGER, show_safe

State = Literal["ok", "warning", "failed"]
"""``failed``: something the benchmark needs is missing. ``warning``: it runs, and a person should know."""


@dataclass(frozen=True)
class Finding:
    """Outcome of one check.

    Attributes
    ----------
    name : str
        Stable name for scripts, e.g. ``limit_memory``.
    state : str
        ``ok``, ``warning`` or ``failed``.
    measured, expected : str
        What was found on this machine, and what the benchmark needs.
    advice : str
        What to do; empty when the state is ``ok``.
    """

    name: str
    state: State
    measured: str
    expected: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain mapping."""
        return asdict(self)


def judge(name: str, good: bool, measured: str, expected: str, advice: str, otherwise: State = "failed") -> Finding:
    """A finding that is ``ok`` when `good`, else `otherwise` with the advice; text is made safe to show."""
    measured = show_safe(measured, 300)
    return Finding(name, "ok", measured, expected) if good else Finding(name, otherwise, measured, expected, advice)


def run_check(name: str, check: Callable[[], Finding | Iterable[Finding]]) -> tuple[Finding, ...]:
    """Run one check; a check that breaks becomes a failed finding under its name, never a traceback."""
    try:
        found = check()
        return (found,) if isinstance(found, Finding) else tuple(found)
    except FedevalError as err:
        return (Finding(name, "failed", show_safe(f"{err.what}: {err.found}", 300), "an answer", err.next_step),)
    except Exception as err:  # a broken machine breaks checks in ways nobody foresaw: that is an answer too
        LOGGER.exception("check %s broke", name)
        text = show_safe(f"the check itself broke: {type(err).__name__}: {err}", 300)
        return (Finding(name, "failed", text, "an answer", "mend what the message names, then run doctor again"),)
