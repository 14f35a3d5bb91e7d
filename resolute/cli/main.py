"""The program `resolute`."""

from __future__ import annotations

from typing import Any

import click

from resolute import __version__
from resolute.cli.dead.command import dead
from resolute.cli.dev.command import dev
from resolute.cli.doctor.command import doctor
from resolute.cli.exits import guarded
from resolute.cli.flows import flows
from resolute.cli.graph.command import graph
from resolute.cli.ls import ls
from resolute.cli.query import query
from resolute.cli.show.command import show
from resolute.cli.signal import signal
from resolute.cli.start import start
from resolute.cli.stop import cancel, rerun, retry, terminate
from resolute.cli.trigger import trigger

EXIT_CODES = """\b
Exit codes:
  0    ok
  1    the run failed, or what was asked could not be done; doctor: problems found
  2    unusable flags or input; a server that is away, refuses, or is unsuitable
  3    no such run, flow, signal or dead letter
  4    the id belongs to a run of another flow or another input
  124  start --wait: the run has not ended in time; it goes on
  130  interrupted
"""


class Program(click.Group):
    """The group of all commands. Expected errors end it with one line and a code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        guarded(lambda: super(Program, self).main(*args, **extra))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order that a newcomer needs them


@click.group(
    cls=Program, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, package_name="resolute")
def main() -> None:
    """Durable flows for Python on Redis.

    Commands find the server by --redis or RESOLUTE_REDIS; without them, in a folder where
    `resolute dev` runs, they use its server. The commands resolute-coord and resolute-worker run
    flows in production.
    """


for command in (
    dev, start, trigger, ls, show, signal, query, cancel, terminate, retry, rerun, flows, graph,
    doctor, dead,
):  # fmt: skip
    main.add_command(command)
