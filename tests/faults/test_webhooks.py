"""Fault 25: deliveries that come twice, forged or replayed, while their server dies."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import signal
import socket
import time
from random import Random

import httpx

from resolute.status import RunStatus
from tests.faults import app
from tests.faults.app import QUEUE
from tests.faults.conftest import MakeSystem
from tests.support.system import until

SECRET = "a secret"
DELIVERIES = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stripe(body: bytes, moment: int, secret: str = SECRET) -> dict[str, str]:
    mac = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={mac}"}


def test_25_a_webhook_takes_effect_once_and_what_is_wrong_is_refused(
    make_system: MakeSystem, random: Random
) -> None:
    """Each delivery is sent until it is answered, and once more; the coordinator is killed."""
    system = make_system()
    port = free_port()

    def coordinator() -> int:
        http = ("--http", f"127.0.0.1:{port}")
        return system.coordinator(*http, HOOK_SECRET=SECRET).pid

    pid = coordinator()
    system.worker("--processes", "2", app="tests.faults.app", queue=QUEUE)

    async def run() -> None:
        nonlocal pid
        url = f"http://127.0.0.1:{port}/faults"
        async with system.client() as client, httpx.AsyncClient(trust_env=False) as http:
            await system.offered(client, app.delivered.name)

            async def deliver(number: int) -> set[str]:
                body = b'{"id": "evt_%d", "number": %d}' % (number, number)
                found: set[str] = set()
                answered = 0
                while answered < 2:
                    try:
                        answer = await http.post(
                            url, content=body, headers=stripe(body, int(time.time()))
                        )
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)  # until it is back
                        continue
                    assert answer.status_code == 202, answer.text
                    found.add(answer.json()["id"])
                    answered += 1
                return found

            async def attack(number: int) -> None:
                body = b'{"id": "forged_%d", "number": %d}' % (number, number)
                now = int(time.time())
                for headers in ({}, stripe(body, now, "guessed"), stripe(body, now - 1000)):
                    while True:
                        try:
                            answer = await http.post(url, content=body, headers=headers)
                        except httpx.TransportError:
                            await asyncio.sleep(0.05)  # until it is back
                            continue
                        assert answer.status_code == 401
                        break

            async def is_serving() -> bool:
                try:
                    return (await http.post(url, content=b"{}")).status_code == 401
                except httpx.TransportError:
                    return False

            await until(is_serving, "it serves")
            numbers = list(range(DELIVERIES))
            random.shuffle(numbers)
            deliveries = [asyncio.create_task(deliver(number)) for number in numbers]
            attacks = [asyncio.create_task(attack(number)) for number in range(5)]
            os.kill(pid, signal.SIGKILL)
            pid = coordinator()
            found = await asyncio.gather(*deliveries)
            await asyncio.gather(*attacks)
            assert all(len(one) == 1 for one in found)
            ids = {run_id for one in found for run_id in one}
            assert len(ids) == DELIVERIES
            listed = await client.list(flow=app.delivered.name, limit=1000)
            assert {info.id for info in listed} == ids
            for run_id in ids:
                await (await client.get(run_id)).result()
            ended = await client.list(
                flow=app.delivered.name, status=RunStatus.COMPLETED, limit=999
            )
            assert len(ended) == DELIVERIES

    asyncio.run(run())
