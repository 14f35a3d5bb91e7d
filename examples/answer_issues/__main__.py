"""Runs the flow in memory, against a tracker that this starts itself."""

from __future__ import annotations

import os

from examples.answer_issues.flows import Search, flow
from examples.answer_issues.server import TOKEN, serving
from resolute.testing import FlowTester

with serving() as tracker:
    os.environ |= {"TRACKER_URL": tracker.url, "TRACKER_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    result = FlowTester().run(flow, Search("books"))
    print(f"{result.status}: {len(tracker.comments)} of {tracker.issues} issues have an answer")
    for comment in tracker.comments.values():
        print(f"  {comment['path']}: {comment['body']}")
