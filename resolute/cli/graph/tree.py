"""A flow as a tree in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from rich.tree import Tree

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
from resolute.model.plan import NodePlan, Plan, trigger_key

MAX_NODES = 50  # of one step


def flow_tree(plan: Plan) -> Tree:
    """Steps from top to bottom; parallel nodes, arms of branches and compensations below theirs."""
    title = Text(plan.flow, style="bold")
    title.append(f"  plan {plan.hash}", style="dim")
    if plan.queue:
        title.append(f", queue {plan.queue}", style="dim")
    tree = Tree(title, guide_style="dim")
    for number, schedule in enumerate(plan.schedules):
        priority = plan.trigger_priorities.get(trigger_key("schedule", number), "")
        own = f", priority {priority}" if priority else ""
        tree.add(Text(f"◷ {schedule.cron} ({schedule.timezone}){own}", style="magenta"))
    _add_blocks(tree, blocks_of(plan), extras_in(plan))
    return tree


def _add_blocks(tree: Tree, blocks: Sequence[Block], extras: Extras) -> None:
    for block in blocks:
        match block:
            case Step(run=run):
                if not run.parallel:
                    _add_node(tree, run.nodes[0], extras)
                    continue
                label = Text(f"∥ {run.step}", style="bold cyan")
                label.append(f"  {len(run.nodes)} in parallel", style="dim")
                step = tree.add(label)
                for node in run.nodes[:MAX_NODES]:
                    _add_node(step, node, extras)
                if len(run.nodes) > MAX_NODES:
                    step.add(Text(f"… {len(run.nodes) - MAX_NODES:,} more", style="dim"))
            case Pause(wait=wait):
                label = Text(f"⏸ {wait.step}", style="bold magenta")
                tree.add(label.append(f"  {pause_note(wait)}", style="dim"))
            case Every(each=each):
                label = Text(f"∥ {each.step}", style="bold cyan")
                step = tree.add(label.append(f"  {each_note(each)}", style="dim"))
                _add_node(step, each.nodes[0], extras)
            case Spawn(children=children):
                label = Text(f"⑂ {children.step}", style="bold cyan")
                tree.add(label.append(f"  {children_note(children, extras)}", style="dim"))
            case Round(name=name, most=most, body=body):
                label = Text(f"↻ {name}", style="bold yellow")
                label.append(f"  while its condition holds, {most:,} turns at most", style="dim")
                _add_blocks(tree.add(label), body, extras)
            case Choice():
                _add_choice(tree, block, extras)


def _add_choice(tree: Tree, choice: Choice, extras: Extras) -> None:
    label = Text(f"? {choice.name}", style="bold yellow")
    branch = tree.add(label)
    _add_blocks(branch.add(Text("then", style="yellow")), choice.then, extras)
    if choice.otherwise:
        _add_blocks(branch.add(Text("else", style="yellow")), choice.otherwise, extras)


def _add_node(tree: Tree, node: NodePlan, extras: Extras) -> None:
    leaf = tree.add(_label(Text(node.name), node, extras))
    if node.compensation is not None:
        undo = Text("↩ ", style="red").append(node.compensation.name)
        undo.append(" if the flow fails later", style="dim")
        leaf.add(_label(undo, node.compensation, extras))


def _label(name: Text, node: NodePlan, extras: Extras) -> Text:
    notes = notes_on(node, extras)
    return name.append(f"  {' · '.join(notes)}", style="dim") if notes else name
