"""The state machine in short; ``make state-machine`` is the whole of it."""

from __future__ import annotations

from .state_machine import ConnectionMachine, report, run_machine


def test_no_rule_is_broken_in_a_thousand_steps() -> None:
    run_machine(1_000, examples=12)
    assert ConnectionMachine.steps >= 1_000
    happened = ConnectionMachine.happened
    assert happened["resumed"] > 0
    assert any(end.startswith("4400") for end in happened)
    assert "| steps |" in report(1.0)
