"""The state machine of ``resume_machine.py``, as long as one of many tests may take."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from ..resume_machine import ResumeMachine

TestResume = ResumeMachine.TestCase
TestResume.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
