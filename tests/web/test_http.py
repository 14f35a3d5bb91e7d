"""The HTTP server of a coordinator, over real connections."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from resolute import (
    Client,
    Debounce,
    FlowDefinitionError,
    GateResult,
    Unique,
    input_data,
    signal,
    webhook,
)
from resolute.model.builder import FlowBuilder
from resolute.model.flow import Flow
from resolute.status import RunStatus
from resolute.store.store import Store
from resolute.web import server
from resolute.web.server import MAX_BODY, serve_http
from tests.support.flows import step
from tests.support.stage import QUEUE, Stage

SECRET = "a secret"


def hooked(name: str, path: str, secret: str | None, input_type: Any = Any) -> Flow[Any, Any]:
    builder: FlowBuilder[Any, Any] = FlowBuilder(name, input=input_type)
    return builder.triggered_by(webhook(path, secret=secret)).then(step("a")).build()


PUSHED = hooked("pushed", "/github", "env:HOOK_SECRET", dict[str, int])
OPEN = hooked("open", "/in/open", None)
GATED = (
    FlowBuilder("gated").triggered_by(webhook("/gated", secret=None)).then_gate("approval").build()
)


WOKEN = (
    FlowBuilder("woken", input=dict[str, int])
    .triggered_by(signal("new-thing", priority="high"))
    .triggered_by(webhook("/woken", secret=None, priority="low"))
    .then(step("a"))
    .build()
)


EDITED = (
    FlowBuilder("edited", input=dict[str, Any])
    .triggered_by(webhook("/edited", secret=None, debounce=Debounce(input_data("doc"), "1m")))
    .triggered_by(webhook("/check", secret=None, unique=Unique(input_data("doc"), "fail")))
    .triggered_by(signal("edited", unique=Unique(input_data("doc"), "fail")))
    .then(step("a"))
    .build()
)

NOTED = (
    FlowBuilder("noted").triggered_by(signal("noted")).with_signal("note").then(step("a")).build()
)


@asynccontextmanager
async def serving(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[httpx.AsyncClient]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("RESOLUTE_HTTP_TOKEN", "letmein")
    await stage.offer(PUSHED, OPEN, GATED, WOKEN, EDITED, NOTED)
    store: Store = stage.store
    async with (
        serve_http("127.0.0.1", 0, Client(store)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):
        yield http


def signed(body: bytes, delivery: str = "", secret: str = SECRET) -> dict[str, str]:
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={mac}"}
    return {**headers, "X-GitHub-Delivery": delivery} if delivery else headers


async def test_a_signed_delivery_starts_one_run_however_often_it_comes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        body = b'{"number": 7}'
        found: set[str] = set()
        for _ in range(3):
            answer = await http.post("/github", content=body, headers=signed(body, "d/1 x"))
            assert answer.status_code == 202
            found.add(answer.json()["id"])
        (run_id,) = found
        assert (await stage.hash(run_id))["input"] == b"\x81\xa6number\x07"
        other = b'{"number": 8}'
        answer = await http.post("/github", content=other, headers=signed(other, "d/1 x"))
        assert answer.status_code == 409
        answer = await http.post("/github", content=body, headers=signed(body))
        assert answer.json()["id"] not in found


async def test_what_is_forged_or_wrong_starts_nothing_and_is_told_why(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        body = b'{"number": 7}'
        for headers in ({}, signed(body, secret="guessed"), signed(b"another")):
            answer = await http.post("/github", content=body, headers=headers)
            assert (answer.status_code, "signature" in answer.text) == (401, True)
        for wrong, status in ((b"{", 400), (b"\xff", 400), (b'{"number": "x"}', 422)):
            answer = await http.post("/github", content=wrong, headers=signed(wrong))
            assert answer.status_code == status, wrong
        assert (await http.post("/nowhere", content=body)).status_code == 404
        assert (await http.get("/github")).status_code == 405
        large = b" " * (MAX_BODY + 1)
        assert (await http.post("/github", content=large)).status_code == 413
        monkeypatch.delenv("HOOK_SECRET")
        answer = await http.post("/github", content=body, headers=signed(body))
        assert answer.status_code == 401
    assert await stage.store.execute("ZCARD", stage.of("x").open) == 0


async def test_a_request_that_does_not_come_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    async with serving(stage, monkeypatch) as http:
        url = http.base_url
        for sent, expected in (
            (b"POST /in/open HTTP/1.1\r\nHost: x\r\n", b""),
            (b"POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", b"408"),
        ):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(sent)
            answer = await reader.read()
            assert expected in answer.partition(b"\r\n")[0]
            writer.close()


async def test_a_later_request_of_a_connection_that_does_not_come_is_given_up_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: "
    async with serving(stage, monkeypatch) as http:
        for first, then in (
            (head + b"2\r\n\r\n{}", b"POST /in/open HTTP/1.1\r\n"),
            (head.replace(b"nowhere", b"api/signals/x") + b"9\r\n\r\n{", b"1"),
        ):
            reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
            writer.write(first)
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 40")
            writer.write(then)
            async with asyncio.timeout(30):
                assert await reader.read() == b""
            writer.close()


async def test_a_body_that_no_codec_or_stack_can_hold_is_refused_with_its_reason(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    wide = b"[" + b"1.5," * 230_000 + b"1.5]"  # four bytes each as JSON, and nine as MessagePack
    async with serving(stage, monkeypatch) as http:
        for body, status in (
            (b"99999999999999999999999", 422),
            (b"[" * 200_000, 400),
            (wide, 413),
        ):
            answer = await http.post("/in/open", content=body)
            assert answer.status_code == status, body[:50]
            assert answer.json()["error"]
        token = {"Authorization": "Bearer letmein"}
        await stage.start(NOTED, "noted")
        for body, status in ((b"99999999999999999999999", 422), (b"[" * 200_000, 400), (wide, 413)):
            for url in ("/api/runs/noted/signals/note", "/api/signals/noted"):
                answer = await http.post(url, content=body, headers=token)
                assert answer.status_code == status, (url, body[:50])


async def test_a_webhook_without_a_secret_takes_anybody_s(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        answer = await http.post("/in/open", json={"any": "thing"})
        assert answer.status_code == 202
        assert (await stage.header(answer.json()["id"])).flow == "open"


async def test_a_plan_that_cannot_be_read_takes_no_other_flow_s_hook_down(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        plans = stage.store.keys.meta.plans
        await stage.store.execute("HSET", plans, PUSHED.plan_hash, b"of a later release")
        assert (await http.post("/github", content=b"{}")).status_code == 404
        assert (await http.post("/in/open", json={})).status_code == 202


async def test_who_has_the_token_sends_signals(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    async with serving(stage, monkeypatch) as http:
        run_id = (await http.post("/gated", json=None)).json()["id"]
        await stage.coordinate()
        url = f"/api/runs/{run_id}/signals/approval"
        for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "Basic letmein"}):
            assert (await http.post(url, headers=headers)).status_code == 401
        headers = {"Authorization": "Bearer letmein", "Idempotency-Key": "k"}
        wrong = await http.post(url, json={"approved": 3}, headers=headers)
        assert (wrong.status_code, "approved" in wrong.text) == (422, True)
        empty = await http.post(url, headers=headers)
        assert (empty.status_code, "approved" in empty.text) == (422, True)
        unknown = await http.post(f"/api/runs/{run_id}/signals/x", headers=headers)
        assert unknown.status_code == 404
        for _ in range(2):
            decision = {"approved": True, "decided_by": "ann"}
            sent = await http.post(url, json=decision, headers=headers)
            assert sent.status_code == 202
        await stage.coordinate()
        assert await stage.status(run_id) is RunStatus.COMPLETED
        client = Client(stage.store)
        result = await (await client.get(run_id)).result(GateResult)
        assert result.decided_by == "ann"
        other = {**headers, "Idempotency-Key": "other"}
        ended = await http.post(url, json={"approved": True}, headers=other)
        assert ended.status_code == 409
        await client.watcher.close()


async def test_who_has_the_token_starts_flows_by_a_signal(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        url, headers = "/api/signals/new-thing", {"Authorization": "Bearer letmein"}
        assert (await http.post(url, json={})).status_code == 401
        assert (await http.post("/api/signals/other", headers=headers)).status_code == 404
        assert (await http.post(url, json=[], headers=headers)).status_code == 422
        once = {**headers, "Idempotency-Key": "k 1"}
        found = [await http.post(url, json={"number": 7}, headers=once) for _ in range(2)]
        assert [answer.status_code for answer in found] == [202, 202]
        assert found[0].json() == found[1].json()
        (run_id,) = found[0].json()["runs"]
        assert (await stage.hash(run_id))["input"] == b"\x81\xa6number\x07"
        assert (await http.post(url, json={"number": 8}, headers=once)).status_code == 409


async def test_a_run_has_the_priority_of_the_trigger_that_started_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        headers = {"Authorization": "Bearer letmein"}
        woken = await http.post("/api/signals/new-thing", json={"number": 1}, headers=headers)
        (high,) = woken.json()["runs"]
        low = (await http.post("/woken", json={"number": 1})).json()["id"]
        plain = (await http.post("/in/open", json=1)).json()["id"]
        lanes = [(await stage.header(run_id)).queue for run_id in (high, low, plain)]
        assert lanes == [f"{QUEUE}^high", f"{QUEUE}^low", QUEUE]


async def test_a_child_is_signalled_by_its_id(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    async with serving(stage, monkeypatch) as http:
        await stage.start(GATED, "parent/step.0")
        url = "/api/runs/parent/step.0/signals/approval"
        answer = await http.post(
            url, json={"approved": True}, headers={"Authorization": "Bearer letmein"}
        )
        assert answer.json() == {"id": "parent/step.0", "signal": "approval"}


def test_a_secret_in_the_code_is_refused_when_the_flow_is_built():
    with pytest.raises(FlowDefinitionError, match="would be kept in Redis"):
        hooked("f", "/github", "hunter2")
    for path in ("github", "/", "/a b", "/api/x", "/a//b"):
        with pytest.raises(FlowDefinitionError, match="expected a path such as"):
            hooked("f", path, None)
    assert json.loads(json.dumps(PUSHED.plan.webhooks[0].secret_from)) == "HOOK_SECRET"


async def test_deliveries_with_one_key_are_one_run_with_the_last_body(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    async with serving(stage, monkeypatch) as http:
        found: list[str] = []
        for number in (1, 2, 1):  # the first is sent again
            answer = await http.post(
                "/edited", json={"doc": "d", "n": number}, headers={"X-Delivery-Id": str(number)}
            )
            assert answer.status_code == 202
            found.append(answer.json()["id"])
        assert len(set(found)) == 1
        stored = (await stage.hash(found[0]))["input"]
        assert msgspec.msgpack.decode(stored) == {"doc": "d", "n": 2}
        other = await http.post("/edited", json={"doc": "e"})
        assert other.json()["id"] != found[0]
        refused = await http.post("/edited", json={"n": 3})
        assert (refused.status_code, "has no 'doc'" in refused.json()["error"]) == (422, True)


async def test_while_a_run_with_its_key_is_open_another_delivery_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    token = {"Authorization": "Bearer letmein"}
    async with serving(stage, monkeypatch) as http:
        first = await http.post("/check", json={"doc": 7}, headers={"X-Delivery-Id": "1"})
        again = await http.post("/check", json={"doc": 7}, headers={"X-Delivery-Id": "1"})
        assert first.json() == again.json()
        run_id = first.json()["id"]
        refused = await http.post("/check", json={"doc": 7}, headers={"X-Delivery-Id": "2"})
        assert (refused.status_code, run_id in refused.json()["error"]) == (409, True)
        by_signal = await http.post("/api/signals/edited", json={"doc": 7}, headers=token)
        assert by_signal.status_code == 409
        await stage.work()
        after = await http.post("/check", json={"doc": 7}, headers={"X-Delivery-Id": "2"})
        assert after.status_code == 202 and after.json()["id"] != run_id
