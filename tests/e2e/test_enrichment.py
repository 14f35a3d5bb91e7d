"""The example on a whole archive: two coordinators, two workers, and some of them killed.

The archive is the sample of the repository; RESOLUTE_ARCHIVE names another. What every row must
be is computed from the archive, on a path of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.enrich_issues import archive as archives
from examples.enrich_issues import flows
from examples.enrich_issues.processes import Processes
from examples.enrich_issues.report import compare_rows
from examples.enrich_issues.store import IssueStore
from resolute.status import RunStatus
from resolute.testing.server import ServerBinary
from tests.support.processes import children_of
from tests.support.system import ROOT, System, until

SAMPLE = ROOT / "examples" / "enrich_issues" / "sample.json"
ARCHIVE = Path(os.environ.get("RESOLUTE_ARCHIVE", SAMPLE))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[str]:
    """The base URL of the three services, which fail and refuse as real ones do."""
    command = [
        sys.executable, "-m", "examples.enrich_issues.services", "--data", str(ARCHIVE),
    ]  # fmt: skip
    with Processes(tmp_path) as processes:
        line = processes.start_and_read_line("services", command, dict(os.environ))
        yield json.loads(line)["url"]


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/stats", timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("kills", [False, True], ids=["undisturbed", "killed-half-way"])
def test_every_issue_is_enriched_and_no_service_is_overrun(
    make_system: Callable[..., System],
    binary: ServerBinary,
    services: str,
    tmp_path: Path,
    kills: bool,
) -> None:
    archive = archives.load(ARCHIVE)
    database = tmp_path / "issues.sqlite"
    system = make_system(binary)
    options: dict[str, Any] = {
        "app": "examples.enrich_issues.flows",
        "queue": "enrichment-queue",
        "ENRICH_SERVICES_URL": services,
        "ENRICH_DB": str(database),
    }
    coordinators = [system.coordinator() for _ in range(2)]
    workers = [system.worker("--processes", "2", **options) for _ in range(2)]

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, flows.enrich_issue.name, processes=4)
            numbers = [issue.number for issue in archive.issues]
            runs = await client.start_many(
                flows.enrich_issue,
                [flows.IssueInput(number) for number in numbers],
                ids=[f"issue-{number}" for number in numbers],
            )
            if kills:
                index = client.store.keys.partitions[0].ended(RunStatus.COMPLETED)

                async def half_done() -> bool:
                    return int(await client.store.execute("ZCARD", index)) >= len(runs) / 2

                await until(half_done, "half of the runs have ended")
                coordinators[0].kill()
                for pid in children_of(workers[0].pid):
                    os.kill(pid, 9)
                workers[0].kill()
            await asyncio.gather(*(one.result() for one in runs))
            assert {await one.status() for one in runs} == {RunStatus.COMPLETED}

    asyncio.run(run())
    found = IssueStore(database)
    assert compare_rows(found.rows(), archives.expected_rows(archive)) == []
    found.close()
    assert all(service["http_429"] == 0 for service in stats(services).values())
