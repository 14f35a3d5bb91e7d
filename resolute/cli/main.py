"""The program `resolute`."""

from __future__ import annotations

import click

from resolute.cli.exits import guarded
from resolute.cli.ls import ls
from resolute.cli.show.command import show
from resolute.cli.start import start
from resolute.cli.flows import flows
from resolute.cli.graph.command import graph
from resolute.cli.stop import cancel, retry, terminate
from typing import Any
class Program(click.Group):
    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        guarded(lambda: super(Program, self).main(*args, **extra))

@click.group(cls=Program)
def main(): ...
for c in (ls, show, start, cancel, retry, terminate, flows, graph): main.add_command(c)
