"""A flow as the text of a Mermaid flowchart (https://mermaid.js.org)."""

from __future__ import annotations

from collections.abc import Sequence

from resolute.cli.graph.notes import (
    Extras,
    children_note,
    each_note,
    extras_in,
    notes_on,
    pause_note,
)
from resolute.cli.graph.structure import (
    Block,
    Choice,
    Every,
    Pause,
    Round,
    Spawn,
    Step,
    blocks_of,
)
from resolute.model.plan import NodePlan, Plan

# Where an edge comes from, and what is written on it.
Source = tuple[str, str]


def mermaid(plan: Plan) -> str:
    """The flowchart; parallel steps are subgraphs, compensations hang on dotted edges."""
    chart = _Chart(extras_in(plan))
    chart.line(f'start(["{plan.flow}"])')
    ends = chart.blocks(blocks_of(plan), [("start", "")])
    chart.line("done((end))")
    chart.edges(ends, "done")
    return "\n".join(["flowchart TD", *chart.lines]) + "\n"


class _Chart:
    """The lines so far."""

    def __init__(self, extras: Extras) -> None:
        self._extras = extras
        self.lines: list[str] = []
        self._depth = 1

    def line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)

    def edges(self, sources: Sequence[Source], target: str) -> None:
        for source, label in sources:
            self.line(f"{source} -->|{label}| {target}" if label else f"{source} --> {target}")

    def blocks(self, blocks: Sequence[Block], sources: list[Source]) -> list[Source]:
        """Draw blocks one after the other; what the next one follows."""
        for block in blocks:
            match block:
                case Step():
                    sources = self._step(block, sources)
                case Pause(pc=pc, wait=wait):
                    self.line(f'n{pc}{{{{"{wait.step}<br/>{pause_note(wait)}"}}}}')
                    self.edges(sources, f"n{pc}")
                    sources = [(f"n{pc}", "")]
                case Every(pc=pc, each=each):
                    self.line(f'subgraph n{pc} ["{each.step}<br/>{each_note(each)}"]')
                    self._depth += 1
                    self._node(f"n{pc}_0", each.nodes[0])
                    self._depth -= 1
                    self.line("end")
                    self.edges(sources, f"n{pc}")
                    sources = [(f"n{pc}", "")]
                case Spawn(pc=pc, children=children):
                    self.line(
                        f'n{pc}[["{children.step}<br/>{children_note(children, self._extras)}"]]'
                    )
                    self.edges(sources, f"n{pc}")
                    sources = [(f"n{pc}", "")]
                case Round():
                    sources = self._round(block, sources)
                case Choice():
                    sources = self._choice(block, sources)
        return sources

    def _step(self, step: Step, sources: list[Source]) -> list[Source]:
        name = f"n{step.pc}"
        if not step.run.parallel:
            self._node(name, step.run.nodes[0])
        else:
            self.line(f'subgraph {name} ["{step.run.step}"]')
            self._depth += 1
            for index, node in enumerate(step.run.nodes):
                self._node(f"{name}_{index}", node)
            self._depth -= 1
            self.line("end")
        self.edges(sources, name)
        return [(name, "")]

    def _round(self, loop: Round, sources: list[Source]) -> list[Source]:
        name = f"n{loop.pc}"
        self.line(f'{name}{{"{loop.name}: again?"}}')
        self.edges(sources, name)
        self.edges(self.blocks(loop.body, [(name, "yes")]), name)
        return [(name, "no")]

    def _choice(self, choice: Choice, sources: list[Source]) -> list[Source]:
        name = f"n{choice.pc}"
        self.line(f'{name}{{"{choice.name}"}}')
        self.edges(sources, name)
        then = self.blocks(choice.then, [(name, "yes")])
        return then + self.blocks(choice.otherwise, [(name, "no")])

    def _node(self, name: str, node: NodePlan) -> None:
        self.line(f'{name}["{self._label(node)}"]')
        if node.compensation is not None:
            self.line(f'{name}_undo["{self._label(node.compensation)}"]')
            self.line(f"{name} -.->|undone by| {name}_undo")

    def _label(self, node: NodePlan) -> str:
        return "<br/>".join([node.name, *notes_on(node, self._extras)])
