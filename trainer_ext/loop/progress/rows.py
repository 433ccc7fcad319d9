"""One line about each rollout, as text: for a file, for a narrow terminal, and as a row of a table for a wide one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

TABLE_WIDTH = 120  #: columns of a terminal from which on there is a table


@dataclass(frozen=True)
class Row:
    """
    What is shown of a rollout and the training on it.

    Parameters:
        rollout (`int`):
            Its number, as in the name of its file: 0 for the first.
        logs (`Mapping[str, float]`):
            The newest value of each metric.
        fixed (`tuple[float, float]`, *optional*):
            Mean reward of the fixed prompts and seeds before training, and after this rollout, if they were drawn.
        seconds_left (`float`, *optional*):
            Time until the end of the run.
    """

    rollout: int
    logs: Mapping[str, float]
    fixed: tuple[float, float] | None = None
    seconds_left: float | None = None

    def number(self, name: str, form: str = ".4g") -> str:
        """Return a metric as text; empty if it was not measured."""
        return f"{self.logs[name]:{form}}" if name in self.logs else ""

    @property
    def compared(self) -> str:
        """The fixed prompts before and now."""
        return "" if self.fixed is None else "{:.4g} -> {:.4g}".format(*self.fixed)

    @property
    def left(self) -> str:
        """The time that is left."""
        return "" if self.seconds_left is None else duration(self.seconds_left)


def duration(seconds: float) -> str:
    """Return a time in the unit that fits: `40 s`, `12 min`, `3 h 20 min`, `120 h`."""
    minutes = round(seconds / 60)
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 100 * 60 else f"{round(seconds / 3600)} h"


def as_line(row: Row, width: int | None = None) -> str:
    """Return a row as one line that can be read on its own. What does not fit into `width` is left out, from its end."""
    compared = f"(fixed {row.compared})" if row.compared else ""
    reward = f"reward {row.number('reward')}" if "reward" in row.logs else ""
    parts = [
        " ".join(filter(None, [reward, compared])),
        f"ratio {row.number('ratio')}" if "ratio" in row.logs else "",
        f"{row.number('images_per_second')} images/s" if "images_per_second" in row.logs else "",
        f"{row.left} left" if row.left else "",
    ]
    parts = [part for part in parts if part]
    start = f"rollout {row.rollout}: "
    while width is not None and len(parts) > 1 and len(start) + len(", ".join(parts)) > width:
        parts.pop()
    return start + ", ".join(parts)


# Of a table: the title of each column, its width, and its text. 118 in all, with the spaces between them.
COLUMNS: Sequence[tuple[str, int, Callable[[Row], str]]] = (
    ("rollout", 7, lambda row: str(row.rollout)),
    ("reward", 10, lambda row: row.number("reward")),
    ("std", 9, lambda row: row.number("reward_std")),
    ("fixed prompts", 24, lambda row: row.compared),
    ("ratio", 8, lambda row: row.number("ratio")),
    ("KL", 9, lambda row: row.number("approx_kl") or row.number("kl")),
    ("clipped", 7, lambda row: f"{row.logs['clipfrac']:.1%}" if "clipfrac" in row.logs else ""),
    ("images/s", 8, lambda row: row.number("images_per_second", ".3g")),
    ("train s", 7, lambda row: row.number("seconds/training", ".3g")),
    ("left", 11, lambda row: row.left),
)


def table_header() -> str:
    """Return the titles of the columns."""
    return "  ".join(f"{title:>{width}}" for title, width, _ in COLUMNS)


def as_table_row(row: Row) -> str:
    """Return a row below [`table_header`]."""
    return "  ".join(f"{text(row):>{width}}" for _, width, text in COLUMNS)
