"""How much property tests try: ``--hypothesis-profile=deep`` tries twenty times more."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

USUAL = 100
STEPS = 50


def examples(count: int, *, steps: int = STEPS) -> settings:
    """Settings for `count` examples, or more in a deeper profile; no deadline on a busy machine.

    A state machine takes up to `steps` steps in each.
    """
    profile = settings.default
    assert profile is not None
    return settings(
        max_examples=max(1, count * profile.max_examples // USUAL),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # the store is shared by the examples, on purpose
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
        ],
    )
