"""Faults 19 and 24: a server that cannot be used, from the beginning or for a while."""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resolute import Client
from resolute.store import registry
from resolute.testing.server import ServerBinary, find_servers
from tests.faults import app
from tests.faults.app import QUEUE, Work
from tests.faults.cases import CASES, STEADY
from tests.faults.cluster import APP
from tests.faults.conftest import Drill, MakeSystem
from tests.faults.nemesis import Scene
from tests.support.system import System, until

FEW = 4  # descriptors; fewer than anybody has, so that nothing more can be opened
MIXED = [*STEADY, CASES["long"]]


def logs_of(system: System) -> list[str]:
    return [path.read_text(errors="replace") for path in sorted(system.folder.glob("*.err"))]


def all_say(system: System, pattern: str) -> Callable[[], bool]:
    """Whether every process of the system has logged something like it."""
    return lambda: all(re.search(pattern, log) for log in logs_of(system))


def reset(scene: Scene) -> None:
    """Close every connection but those of the test itself."""
    for proxy in scene.cluster.proxies:
        proxy.reset_all()


def allow_files(pid: int, count: int) -> int:
    """Set how many descriptors a process may have; how many it was before."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))
    return soft


def test_24_too_many_clients_are_a_clear_error_until_there_are_fewer(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        system = scene.cluster.system
        for _ in range(2):
            await scene.is_busy()
            await scene.command("CONFIG", "SET", "maxclients", "1")
            reset(scene)
            await until(all_say(system, "max number of clients"), "everybody says why")
            await scene.command("CONFIG", "SET", "maxclients", "10000")
        await scene.is_busy()

    report = drill(scenario, cases=MIXED)
    assert report.repeated == []


def test_24_a_server_without_descriptors_is_waited_for(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        system = scene.cluster.system
        before = allow_files(system.server.pid, FEW)
        reset(scene)
        await until(all_say(system, "did not answer|cannot reach|lost"), "everybody says why")
        allow_files(system.server.pid, before)
        await scene.is_busy()

    report = drill(scenario, cases=MIXED)
    assert report.repeated == []


def test_24_a_worker_without_descriptors_says_so_and_goes_on_when_it_has_some(
    drill: Drill,
) -> None:
    """It can neither connect nor start a process in the place of one that died."""

    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        system, member = scene.cluster.system, scene.some(scene.cluster.workers)
        supervisor, child = member.pids()
        usual = allow_files(supervisor, FEW)
        scene.cluster.kill(member, child)
        await until(lambda: "cannot start a process" in system.logs(), "it cannot be replaced")
        assert member.process.poll() is None
        allow_files(supervisor, usual)

        async def replaced() -> bool:
            known = (await registry.processes(scene.store)).values()
            return {process.pid for process in known} >= set(member.children()) > set()

        await until(replaced, "it is replaced")
        await scene.is_busy()
        pids = member.pids()
        for pid in pids:
            allow_files(pid, FEW)
        member.proxy.reset_all()
        reason = "cannot reach redis://.*Too many open files"
        await until(lambda: re.search(reason, system.logs()) is not None, "it says why")
        for pid in pids:
            allow_files(pid, usual)
        await scene.is_busy()
        assert member.pids() == pids

    drill(scenario, cases=MIXED)


def test_24_a_password_that_is_wrong_for_a_while_is_a_clear_error(drill: Drill) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        system = scene.cluster.system
        await scene.command("CONFIG", "SET", "requirepass", "another")
        reset(scene)
        await until(all_say(system, "refused the connection: NOAUTH"), "everybody says why")
        await scene.command("CONFIG", "SET", "requirepass", "")
        await scene.is_busy()
        assert "another" not in system.logs()

    report = drill(scenario, cases=MIXED)
    assert report.repeated == []


class Authority:
    """A certificate authority in a folder, made and used by openssl(1)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.certificate = folder / "ca.crt"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={folder.name}", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
        )  # fmt: skip

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for this machine, and its key."""
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=server", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        (self.folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-extfile", "names", "-out", f"{name}.crt", "-days", "2",
        )  # fmt: skip
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


def speaks_tls(binary: ServerBinary) -> bool:
    """Whether the server can: one that cannot does not know what TLS is."""
    words = [binary.path, "--port", "0", "--tls-port", "1", "--tls-cert-file", "nowhere"]
    answer = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return "Missing implement" not in answer.stdout and "tls-port" not in answer.stderr


def test_24_another_tls_certificate_is_a_clear_error_and_a_renewed_one_is_not(
    make_system: MakeSystem, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    able = [binary for binary in find_servers() if speaks_tls(binary)]
    if not able:
        pytest.skip("no server of this machine was built with TLS")
    ours, strange = Authority(tmp_path / "ours"), Authority(tmp_path / "strange")
    certificate, key = ours.issue("first")
    system = make_system(binary=able[0])
    server = system.server

    async def run() -> None:
        port = str(free_port())
        async with Client.connect(server.url) as admin:

            async def configure(*pairs: object) -> None:
                await admin.store.execute("CONFIG", "SET", *map(str, pairs))

            async def present(certificate: Path, key: Path) -> None:
                """Show this certificate from now on, to everybody."""
                await configure("tls-cert-file", certificate, "tls-key-file", key)
                me = await admin.store.execute("CLIENT", "ID")
                for line in (await admin.store.execute("CLIENT", "LIST")).splitlines():
                    client = int(line.split(b" ")[0].partition(b"=")[2])
                    if client != me:
                        await admin.store.execute("CLIENT", "KILL", "ID", client)

            await configure(
                "tls-cert-file", certificate, "tls-key-file", key,
                "tls-ca-cert-file", ours.certificate, "tls-auth-clients", "no", "tls-port", port,
            )  # fmt: skip
            url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ours.certificate}"
            system.coordinator(RESOLUTE_REDIS=url)
            system.worker(app=APP, queue=QUEUE, RESOLUTE_REDIS=url)
            await system.offered(admin, app.sequence.name)
            async with Client.connect(url, patience=40) as client:
                runs = await client.start_many(app.long, [Work(1)] * 20)
                await present(*strange.issue("strange"))
                await until(all_say(system, "certificate verify failed"), "everybody says why")
                await present(*ours.issue("renewed"))
                runs += await client.start_many(app.sequence, [Work(2)] * 20)
                results = await asyncio.gather(*(one.result() for one in runs))
                assert [made.value for made in results] == [4] * 40
                for one in runs:
                    for record in await one.history():
                        assert (record.attempts, record.crashes) == (1, 0)

    asyncio.run(run())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PROGRAMS = ("resolute-coord", "resolute-worker")


@pytest.mark.parametrize("program", PROGRAMS)
def test_19_an_evicting_server_is_refused_unless_that_is_allowed(
    make_system: MakeSystem, program: str
) -> None:
    system = make_system(options=["--maxmemory-policy", "allkeys-lru"])

    def start(program: str, *flags: str) -> subprocess.Popen[bytes]:
        if program == "resolute-coord":
            return system.coordinator(*flags)
        return system.worker(*flags, app=APP, queue=QUEUE)

    assert start(program).wait(30) == 2
    assert "maxmemory-policy is allkeys-lru, which can delete flows" in system.logs()
    assert "--allow-eviction" in system.logs()
    for one in PROGRAMS:
        start(one, "--allow-eviction")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, app.sequence.name)
            assert (await (await client.start(app.sequence, Work(1))).result()).value == 3

    asyncio.run(run())
