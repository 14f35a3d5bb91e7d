"""A node that is run by name, as its flow asks for it and as its own team has it."""

from __future__ import annotations

from typing import Any

import msgspec

from resolute.model.node_plans import limit_plan
from resolute.model.nodes import Node
from resolute.model.plan import NodePlan
from resolute.model.policies import Limit


def with_limits_of(served: Node[Any, Any], asked: NodePlan) -> tuple[NodePlan, tuple[Limit, ...]]:
    """A named node as its flow wants it, under the limits of the served node too; and these.

    What limits a service holds for all that use it, whatever their flows say.
    """
    known = {limit.bucket for limit in asked.limits}
    found = [(limit_plan("", served.name, one, n), one) for n, one in enumerate(served.limits)]
    new = [(plan, limit) for plan, limit in found if plan.bucket not in known]
    limits = (*asked.limits, *(plan for plan, _ in new))
    return msgspec.structs.replace(asked, limits=limits), tuple(limit for _, limit in new)
