"""No event is lost, whoever dies; tests/measure/kills.py does the same at length."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.measure.kills import BROKERS, Received, run

pytestmark = [pytest.mark.integration, pytest.mark.system]


def test_events_outlive_daemon_and_broker_however_often_these_are_killed(model: Path, tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")  # shown when it fails

    outcome = run(BROKERS["durable"], kills=5, events=100, seed=seed, scratch=tmp_path)

    assert {*outcome.counted} == {*range(1, 101)}
    assert outcome.one_only == 0
    for received in (outcome.online, outcome.offline):
        assert received.missing == []
        assert received.in_order


@pytest.mark.parametrize(
    ("messages", "received"),
    [
        ([("a-1", 1), ("a-2", 2), ("a-3", 3)], Received(3, [], in_order=True, repeats=0, again=0)),
        ([("a-1", 1), ("a-3", 3)], Received(2, [2], in_order=True, repeats=0, again=0)),
        ([("a-1", 1), ("a-3", 3), ("a-2", 2)], Received(3, [], in_order=False, repeats=0, again=0)),
        ([("a-1", 1), ("a-2", 2), ("a-1", 1), ("a-3", 3)], Received(3, [], in_order=True, repeats=1, again=0)),
        ([("a-1", 1), ("a-2", 2), ("b-1", 2), ("b-2", 3)], Received(3, [], in_order=True, repeats=0, again=1)),
    ],
)
def test_the_judge_sees_what_is_wrong(messages: list[tuple[str, int]], received: Received) -> None:
    assert Received.of(messages, [1, 2, 3]) == received
