"""`resolute graph`."""

from __future__ import annotations

import click

from resolute.cli.graph.mermaid import mermaid
from resolute.cli.graph.tree import flow_tree
from resolute.cli.output import as_data, console, print_json
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client
from resolute.model import codec
from resolute.model.plan import Plan


@click.command()
@click.argument("flow")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a Mermaid flowchart.")
@json_option
@target_options
def graph(target: Target, flow: str, as_mermaid: bool, as_json: bool) -> None:
    """Draw the plan of FLOW: steps, branches, limits, retries, compensations.

    What is not said of a node is the default: 5 minutes timeout and 3 attempts.
    """
    if as_json and as_mermaid:
        raise click.UsageError("--json and --mermaid exclude each other")

    async def work(client: Client) -> Plan:
        return (await client.directory.offered(flow)).plan

    plan = target.run(work)
    if as_json:
        print_json(plan_data(plan))
    elif as_mermaid:
        click.echo(mermaid(plan), nl=False)
    else:
        console().print(flow_tree(plan))


def plan_data(plan: Plan) -> dict[str, object]:
    """The plan as JSON has it, with its hash, the kinds of instructions and readable inputs."""
    instructions = [
        {"kind": instruction.__struct_config__.tag, **as_data(instruction)}
        for instruction in plan.instructions
    ]
    schedules = [
        {"cron": s.cron, "timezone": s.timezone, "input": codec.decode(s.input)}
        for s in plan.schedules
    ]
    return {
        **as_data(plan), "hash": plan.hash, "instructions": instructions, "schedules": schedules,
    }  # fmt: skip
