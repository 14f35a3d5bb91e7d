"""A deliberate break of each guard makes a test fail: else nothing would notice its loss.

A guard is broken in a copy of the sources, and the tests that are to notice run there. Each break
is one replacement of text, so that a guard that is written anew must be named here anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.system import ROOT

PASSED, FAILED = 0, 1  # exit codes of pytest
COPIED = ("resolute", "worker", "tests", "pyproject.toml")
LUA = "resolute/store/lua"


@dataclass(frozen=True)
class Guard:
    """What protects a promise, how to break it, and the tests that must notice."""

    name: str
    file: str
    text: str
    broken: str
    tests: str


GUARDS = (
    # The fence: (token, process), and the status of the run.
    Guard("fence of complete", f"{LUA}/complete_nodes.lua",
          "string.sub(record, 1, #held) ~= held", "false", "tests/store/test_fences.py"),
    Guard("status in complete", f"{LUA}/complete_nodes.lua",
          "(status ~= RUNNING and status ~= FAILING and status ~= COMPENSATING)", "false",
          "tests/store/test_fences.py"),
    Guard("token in the fence", f"{LUA}/lib_node.lua",
          "r.state == NODE_RUNNING and r.token == token\n    and r.process == process",
          "r.state == NODE_RUNNING\n    and r.process == process", "tests/store/test_fences.py"),
    Guard("process in the fence", f"{LUA}/lib_node.lua",
          "r.token == token\n    and r.process == process", "r.token == token",
          "tests/store/test_fences.py"),
    Guard("a damaged token is told", f"{LUA}/lib_node.lua",
          " and r.entry == entry and r.token ~= token then", " and false then",
          "tests/store/test_fences.py"),
    Guard("open run in the fence", f"{LUA}/lib_node.lua",
          "return node.open and node.current == node.seq and r.state == NODE_RUNNING",
          "return node.current == node.seq and r.state == NODE_RUNNING",
          "tests/store/test_fences.py"),
    Guard("token at the first begin", f"{LUA}/begin_nodes.lua",
          "if h[2] ~= token or h[4] ~= seq then return refuse(STALE, entry) end", "",
          "tests/store/test_begin_nodes.py"),
    Guard("one claim at a time", f"{LUA}/begin_nodes.lua",
          "elseif not is_held(node, token, process) or r.entry ~= entry then\n"
          "    refuse_garbled(r, token, process, entry)\n"
          "    return refuse(STALE, entry)\n  end", "end", "tests/store/test_begin_nodes.py"),
    Guard("a released timer's token", f"{LUA}/release_due.lua",
          "      and node.record.token == token then", "then", "tests/store/test_release_due.py"),
    Guard("reclaim of a claim", f"{LUA}/reclaim_nodes.lua",
          "if not was_claimed and not is_unclaimed(node, token) then return {STALE} end", "",
          "tests/store/test_reclaim_nodes.py"),
    Guard("a lease ends by the beat that was seen", f"{LUA}/end_leases.lua",
          "if found ~= count then return {CONFLICT} end", "", "tests/coordinator/test_leases.py"),
    Guard("a process that is gone does not come back", f"{LUA}/note_health.lua",
          "if redis.call('HEXISTS', KEYS[1], process) == 0 then return {GONE} end", "",
          "tests/store/test_resends.py"),
    Guard("a health check that ends itself", "worker/resolute_worker/health.py",
          "except BaseException as error:", "except Exception as error:",
          "tests/worker/test_health.py"),
    # Compare-and-set.
    Guard("compare-and-set of a transition", f"{LUA}/commit_transition.lua",
          "if current ~= expect then", "if not current then",
          "tests/store/test_commit_transition.py"),
    Guard("a lost race is told", f"{LUA}/commit_transition.lua",
          "if current and current ~= rev then return {CONFLICT} end", "",
          "tests/store/test_commit_transition.py"),
    Guard("an unsettled step is not left", f"{LUA}/commit_transition.lua",
          "if leaves_step and h[2] ~= '0' then return {CONFLICT} end", "",
          "tests/store/test_commit_transition.py"),
    Guard("a lost race is run again", "resolute/coordinator/dispatcher.py",
          "again.append(Pending(pending.id, _look_of(pending.event)))", "pass",
          "tests/coordinator/test_dispatcher.py"),
    Guard("deletion by the hash", f"{LUA}/drop_flows.lua",
          " and ended and ended <= before", "", "tests/store/test_drop_flows.py"),
    # Idempotence: an answer may be lost.
    Guard("a start sent twice", f"{LUA}/start_flow.lua",
          "if there[1] == item[4] and is_same(there, item[12], input) then return {EXISTS} end", "",
          "tests/store/test_resends.py tests/store/test_start_flow.py"),
    Guard("a start that is there", f"{LUA}/start_flow.lua", "if there[1] then", "if false then",
          "tests/store/test_start_flow.py"),
    Guard("a completion sent twice", f"{LUA}/complete_nodes.lua",
          "if record and string.sub(record, 1, #settled) == settled then return {OK} end", "",
          "tests/store/test_resends.py tests/store/test_complete_nodes.py"),
    Guard("a failure sent twice", f"{LUA}/fail_nodes.lua",
          "      return {OK}\n    end\n    stale", "    end\n    stale",
          "tests/store/test_resends.py tests/store/test_fail_nodes.py"),
    Guard("a return sent twice", f"{LUA}/return_nodes.lua",
          "if skipped or r.token == next_token(token) then return {OK} end", "",
          "tests/store/test_resends.py tests/store/test_return_nodes.py"),
    Guard("a page sent twice", f"{LUA}/turn_page.lua",
          "if skipped or r.token == next_token(token) then return {OK} end", "",
          "tests/store/test_resends.py tests/store/test_turn_page.py"),
    Guard("fence of a page", f"{LUA}/turn_page.lua",
          "if not is_held(node, token, process) then", "if false then",
          "tests/store/test_turn_page.py"),
    Guard("fence of progress", f"{LUA}/keep_progress.lua",
          "if not is_held(node, token, process) then return {STALE} end", "",
          "tests/store/test_keep_progress.py"),
    Guard("progress is written before a failure is told", "worker/resolute_worker/runner.py",
          "if calls or has_rest:", "if calls:", "tests/worker/test_heartbeats.py"),
    Guard("a commit sent twice", f"{LUA}/commit_transition.lua",
          "return {current and OK or GONE}", "return {CONFLICT}",
          "tests/store/test_resends.py tests/store/test_commit_transition.py"),
    Guard("a retry sent twice", f"{LUA}/retry_flow.lua",
          "if there == nonce then return {OK} end", "",
          "tests/store/test_resends.py tests/store/test_retry_flow.py"),
    Guard("a cost that overflows", f"{LUA}/lib_node.lua",
          "redis.pcall('HINCRBY', key, 'cost:'", "redis.call('HINCRBY', key, 'cost:'",
          "tests/store/test_costs.py"),
    Guard("a hook comes before the commit", "worker/resolute_worker/runner.py",
          "                await self._call_hooks(job, calls)\n        finally:",
          "                self.committer.add(job, result)\n        finally:",
          "tests/worker/test_hooks.py"),
    Guard("the fan-in never falls below 0", f"{LUA}/lib_node.lua",
          "if node.pending < 0 then error(", "if false then error(",
          "tests/store/test_fail_nodes.py tests/store/test_fences.py"
          " tests/store/test_return_nodes.py tests/store/test_reclaim_nodes.py"),
    # Shared keys.
    Guard("a key that is taken", f"{LUA}/lib_claim.lua",
          "if mode ~= 'replace' then return {TAKEN, holder, waiting, ''} end", "",
          "tests/store/test_unique_starts.py"),
    Guard("only who saw who has the key is judged", f"{LUA}/lib_claim.lua",
          "if holder ~= seen or waiting ~= next_seen then return {TAKEN, holder, waiting, ''} end",
          "", "tests/store/test_unique_starts.py"),
    Guard("a run that ends frees its key", f"{LUA}/lib_claim.lua",
          "if h[1] then pass_on(claims, h[1], id, inbox) end", "",
          "tests/store/test_unique_starts.py"),
    Guard("only who has a key gives it away", f"{LUA}/lib_claim.lua",
          "if redis.call('HGET', claims, field) ~= id then\n", "if false then\n",
          "tests/store/test_unique_starts.py"),
    Guard("who replaces a run waits", "resolute/store/claims.py",
          "if not header.replaces or not header.unique:", "if True:",
          "tests/store/test_unique_starts.py"),
    Guard("a retried run asks for its key", f"{LUA}/retry_flow.lua",
          "if claim[1] then", "if false then", "tests/store/test_unique_starts.py"),
    Guard("a debounced start sent twice", f"{LUA}/debounce_flow.lua",
          "if h[4] and tonumber(h[4]) >= number then return {OK, pending} end", "",
          "tests/store/test_debounced_starts.py"),
    Guard("a debounced run that was cancelled takes no more", f"{LUA}/debounce_flow.lua",
          "if h[1] == RUNNING and h[2] then", "if h[2] then",
          "tests/store/test_debounced_starts.py"),
    Guard("a debounced run that begins frees its key", f"{LUA}/fire_timers.lua",
          "end_debounce(KEYS[3], h[6], flow)", "", "tests/store/test_debounced_starts.py"),
    # Leases.
    Guard("a worker without beats stands down", "worker/resolute_worker/shared.py",
          "return self.beat_age() > self.lease * 2 / 3", "return False",
          "tests/worker/test_reading.py"),
    Guard("a lease lasts a lease", "resolute/coordinator/leases.py",
          "return self._last_read - seen.since >= self._span(process)", "return True",
          "tests/coordinator/test_leases.py"),
    Guard("a gap in one's own reads", "resolute/coordinator/leases.py",
          "seen.since += gap", "pass", "tests/coordinator/test_leases.py"),
    Guard("a new connection", "resolute/coordinator/leases.py",
          "is_new_link = self._store.registry_epoch != self._epoch", "is_new_link = False",
          "tests/coordinator/test_leases.py"),
    Guard("a lease that was ended", f"{LUA}/beat.lua",
          "if beat == '-1' then return {GONE} end", "if beat == '-1' then beat = '0' end",
          "tests/store/test_beat.py"),
    Guard("a consumer with work pending", f"{LUA}/drop_consumer.lua",
          "if #pending > 0 then return {CONFLICT} end", "", "tests/store/test_drop_consumer.py"),
    # Limits.
    Guard("the bucket's capacity", f"{LUA}/take_tokens.lua",
          "local start = math.max(now, tat - capacity)", "local start = now",
          "tests/store/test_take_tokens.py"),
    Guard("no more places than there are", f"{LUA}/take_places.lua",
          "if before < n - redis.call('HLEN', held) then", "if before < n then",
          "tests/store/test_places.py"),
    Guard("a free place is for those in line", f"{LUA}/take_places.lua",
          "return math.max(now, last[2] and tonumber(last[2]) + 1 or 0), redis.call('ZCARD', line)",
          "return now, 0", "tests/store/test_places.py"),
    Guard("a late look takes nothing", f"{LUA}/sync_places.lua",
          " and tonumber(since) < round", "", "tests/store/test_places.py"),
    Guard("a wake before the wait", f"{LUA}/return_nodes.lua",
          "node.record.hold == WOKEN and is_in_line({hold = hold})", "false",
          "tests/store/test_places.py"),
    Guard("low nodes have their turn", "worker/resolute_worker/turns.py",
          "ROUND = (H, N, H, H, N, H, H, N, H, L)", "ROUND = (H, N, H, H, N, H, H, N, H, H)",
          "tests/worker/test_lanes.py"),
    Guard("lanes are asked by themselves when others wait", "worker/resolute_worker/lanes.py",
          "self._is_crowded = seen >= free and self._remembered > 0", "self._is_crowded = False",
          "tests/worker/test_lanes.py"),
    Guard("an entry says its priority where the stream does not", f"{LUA}/lib_node.lua",
          "return string.match(name, '%^(%l+)@')", "return nil", "tests/worker/test_priorities.py"),
    Guard("only the dead lose their places", "resolute/store/registry.py",
          'elif value is None or value.split(b" ")[0] == over:', "else:",
          "tests/store/test_beat.py"),
    Guard("who beats is not forgotten", f"{LUA}/forget_process.lua",
          "if beat and beat ~= '-1' then return {CONFLICT} end", "", "tests/store/test_beat.py"),
    Guard("a place is that of one process", "worker/resolute_worker/places.py",
          "{job.held.entry.token}@{self._process}", "{job.held.entry.token}",
          "tests/worker/test_places.py"),
    Guard("who is unknown may live", "worker/resolute_worker/places.py",
          " if now - since >= self._lease", "", "tests/worker/test_places.py"),
    Guard("one look at places at a time", "worker/resolute_worker/places.py",
          "async with self._looking:", "if True:", "tests/worker/test_places.py"),
)  # fmt: skip


def copy_to(folder: Path) -> None:
    skip = shutil.ignore_patterns(".*")  # what is compiled stays: a changed source is newer
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skip)
        else:
            shutil.copy(source, folder / name)


def run_tests(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy, in the copy, on the first server and one partition."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests,
               "-k", "not redis-7 and not P3"]  # fmt: skip
    path = os.pathsep.join([str(folder), str(folder / "worker")])
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name.replace(" ", "-"))
def test_the_loss_of_a_guard_is_noticed(guard: Guard, tmp_path: Path) -> None:
    copy_to(tmp_path)
    path = tmp_path / guard.file
    text = path.read_text("utf-8")
    assert text.count(guard.text) == 1, f"{guard.file} has no longer this guard: name it anew"
    path.write_text(text.replace(guard.text, guard.broken), "utf-8")
    done = run_tests(tmp_path, guard.tests.split())
    assert done.returncode == FAILED, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_all_guards_these_tests_pass(tmp_path: Path) -> None:
    """Or their failure would prove nothing."""
    copy_to(tmp_path)
    tests = sorted({test for guard in GUARDS for test in guard.tests.split()})
    done = run_tests(tmp_path, tests)
    assert done.returncode == PASSED, done.stdout[-3000:] + done.stderr[-1000:]
