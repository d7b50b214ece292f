from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.bench.measurement import FREE_RUNNING, Loop, Measured, Task
from edge.bench.rounds import RATIOS, Ratio, cpu_ratio, environment, order, ratios, run, summary
from edge.errors import ModelError, UnforeseenError
from edge.stats import Percentiles


def at(frames_per_s: float, cpu_ms: float = 10.0) -> Measured:
    return Measured(frames_per_s, cpu_ms, with_people=1.0)


def test_a_ratio_is_the_median_of_the_quotients_within_the_rounds() -> None:
    # The machine is half as fast in the second round, and disturbed in the middle of the third.
    rounds = [
        {Loop.BARE: at(50), Loop.POOL: at(90)},
        {Loop.BARE: at(25), Loop.POOL: at(50)},
        {Loop.BARE: at(10), Loop.POOL: at(90)},
    ]
    found = ratios(rounds)
    assert found["pool"] == Ratio(median=2.0, least=1.8, most=9.0)
    assert found.keys() == RATIOS.keys()
    assert {name for name, ratio in found.items() if ratio is None} == RATIOS.keys() - {"pool"}


def test_each_ratio_compares_what_its_name_says() -> None:
    speeds = {Loop.BARE: 2, Loop.SEED: 3, Loop.POOL: 5, Loop.MQTT: 7, Loop.ALL: 11, Loop.ALL_CAPPED: 13}
    found = ratios([{loop: at(speed) for loop, speed in speeds.items()}])
    assert {name: ratio and ratio.median for name, ratio in found.items()} == {
        "pool": 5 / 2,
        "mqtt": 7 / 2,
        "all": 11 / 2,
        "all_capped": 13 / 2,
        "seed": 11 / 3,
        "seed_capped": 13 / 3,
    }


def test_at_the_fixed_rate_processor_time_is_compared() -> None:
    rounds = [{Loop.PACED_BARE: at(30, cpu), Loop.PACED_ALL: at(30, 22.0)} for cpu in (20.0, 22.0, 11.0)]
    assert cpu_ratio(rounds) == Ratio(median=1.1, least=1.0, most=2.0)
    assert cpu_ratio([{Loop.BARE: at(30)}]) is None


def test_of_an_even_number_the_median_lies_between() -> None:
    assert summary([1.0, 4.0, 2.0, 3.0]) == Ratio(2.5, 1.0, 4.0)
    assert summary([]) is None


def test_each_round_begins_with_another_loop_and_has_them_all() -> None:
    firsts = [order(FREE_RUNNING, number)[0] for number in range(len(FREE_RUNNING))]
    assert set(firsts) == set(FREE_RUNNING)
    assert all(sorted(order(FREE_RUNNING, number)) == sorted(FREE_RUNNING) for number in range(9))
    assert order([], 3) == []


def test_tasks_and_figures_pass_between_processes_unchanged() -> None:
    task = Task(Loop.ALL, "model.task", 2.5, masks=False, workers=3, broker="mqtt://127.0.0.1:1", hub="rerun+http://h")
    assert Task.from_json(task.to_json()) == task
    for overhead in (None, Percentiles(1.0, 2.0, 3.0)):
        measured = Measured(80.5, 12.25, 0.5, 0.75, overhead, 3)
        assert Measured.from_json(measured.to_json()) == measured


def test_mediapipes_report_goes_nowhere_from_any_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "proxy.example")
    found = environment()
    assert found["https_proxy"] == "http://255.255.255.255:9"  # decision 8 says why no port of loopback
    assert not {"no_proxy", "NO_PROXY"} & found.keys()
    assert found["PATH"] == os.environ["PATH"]


@pytest.mark.integration
def test_a_childs_error_is_raised_here(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.task"
    damaged.write_text("not a model")
    with pytest.raises(ModelError, match=r"^the loop pool: model .*damaged\.task: MediaPipe can't load it"):
        run(Task(Loop.POOL, str(damaged), 0.5))
    with pytest.raises(UnforeseenError, match=r"^the loop bare failed: \w*Error: [^\n]+$"):
        run(Task(Loop.BARE, str(damaged), 0.5))
