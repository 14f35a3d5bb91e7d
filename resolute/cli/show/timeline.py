"""Bars on a time axis, two to a character, so that 20 columns show 40 moments."""

from __future__ import annotations

import math

import msgspec
from rich.text import Text

from resolute.cli.output import style_of
from resolute.durations import humanize
from resolute.model.messages import NodeRecord

_CELLS = {(True, True): "█", (True, False): "▌", (False, True): "▐"}
WAITED = "┄"


class Axis(msgspec.Struct, frozen=True):
    """A span of Unix time in seconds, `width` characters wide."""

    start: float
    end: float
    width: int

    def header(self) -> Text:
        """The two ends of the axis."""
        right = humanize(self.end - self.start)
        return Text("0" + right.rjust(self.width - 1), no_wrap=True)

    def bar(self, node: NodeRecord, now: float) -> Text:
        """When a node waited, and when its last attempt ran."""
        if node.ended is not None and node.ended < self.start:
            return Text("kept", style="dim")  # from the run that this one retries
        began = node.begun if node.begun is not None else math.inf
        stopped = node.ended if node.ended is not None else now
        first, last = self._half(began), max(self._half(began) + 1, self._half(stopped))
        waited_from = self._half(node.dispatched or began)
        waited_to = first if node.begun is not None else self._half(stopped)
        text = Text(no_wrap=True)
        for column in range(self.width):
            halves = (2 * column, 2 * column + 1)
            filled = (first <= halves[0] < last, first <= halves[1] < last)
            if any(filled):
                text.append(_CELLS[filled], style=style_of(node.status))
            elif waited_from <= halves[1] and halves[0] < waited_to:
                text.append(WAITED, style="dim")
            else:
                text.append(" ")
        return text

    def _half(self, time: float) -> int:
        """The half character that a moment falls into."""
        span = max(self.end - self.start, 0.001)
        if time == math.inf:
            return 2 * self.width
        return min(2 * self.width - 1, max(0, int((time - self.start) / span * 2 * self.width)))
