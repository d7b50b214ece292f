"""`edge-pose bench`. How fast anything is here is for nobody to assert: the machine has other things to do."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.bench.rounds import RATIOS
from tests.cli.command import COMMAND, edge_pose
from tests.conftest import eventually

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

FREE_RUNNING = ["bare", "seed", "pool", "mqtt", "all", "all_capped"]
SHORT = ["--rounds", "1", "--seconds", "0.5"]


@pytest.fixture
def mark() -> Iterator[str]:
    """What the environment of a bench and of everything that it starts holds."""
    yield (mark := uuid.uuid4().hex)
    assert not descendants(mark)


def descendants(mark: str) -> list[str]:
    """The command lines of the processes with that mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has gone meanwhile
            continue
    return found


def positive(values: dict[str, float]) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values.values())


def test_all_figures_are_one_object(mark: str) -> None:
    bench = edge_pose("bench", "--json", *SHORT, "--workers", "2", MARK=mark)
    assert bench.returncode == 0, bench.stderr
    found: dict[str, Any] = json.loads(bench.stdout)
    assert next(iter(found)) == "ratios"
    assert list(found["ratios"]) == list(RATIOS) == ["pool", "mqtt", "all", "all_capped", "seed", "seed_capped"]
    assert positive(found["ratios"])
    assert all(least == most == found["ratios"][name] for name, (least, most) in found["spread"].items())
    assert found["rounds"] == 1
    loops = [*FREE_RUNNING, "paced_bare", "paced_all"]
    for figure in ("frames_per_s", "cpu_ms_per_frame", "with_people"):
        assert list(found[figure]) == loops
        assert positive(found[figure])
    for name, (above, below) in RATIOS.items():
        speeds = found["frames_per_s"]
        assert found["ratios"][name] == pytest.approx(speeds[above] / speeds[below], abs=0.002)
    assert found["delivered"].keys() == {"mqtt", "all", "all_capped", "paced_all"}
    assert all(0 < share <= 1 for share in found["delivered"].values())
    assert found["fixed_rate"].keys() == {"fps", "cpu_ratio", "cpu_spread", "overhead_ms", "workers"}
    assert found["fixed_rate"]["overhead_ms"].keys() == {"p50", "p95", "p99"}
    assert 1 <= found["fixed_rate"]["workers"] <= 16
    assert found["fixed_rate"]["cpu_ratio"] > 0
    assert found["settings"] == {
        "model": {"name": "full", "sha256": found["settings"]["model"]["sha256"]},
        "seconds": 0.5,
        "masks": True,
        "people": 1,
        "workers": 2,
        "cameras": 1,
        "broker": "mosquitto",
    }
    assert found["machine"].keys() == {
        *("board", "processor", "cores", "cores_present", "memory_mb", "kernel", "before", "after", "others")
    }
    for when in ("before", "after"):
        assert found["machine"][when].keys() == {"temperature_celsius", "throttled", "load"}
    assert {"edge-pose", "python", "mediapipe"} <= found["versions"].keys()
    assert isinstance(found["doubts"], list)


def test_people_get_a_table_with_the_ratios_first(mark: str) -> None:
    options = ["--only", "bare", "--only", "pool", "--no-masks", "--model", "lite", "--cameras", "2"]
    bench = edge_pose("bench", *SHORT, *options, MARK=mark)
    assert bench.returncode == 0, bench.stderr
    lines = [line.split() for line in bench.stdout.splitlines() if line.strip()]
    assert lines[0] == ["ratio", "median", "least", "most"]
    assert lines[1][0] == "pool"
    assert lines[1][-1].endswith("x"), "of one round there is no least and no most"
    assert lines[2] == ["loop", "frames/s", "CPU", "ms/frame", "delivered"]
    assert [line[0] for line in lines[3:5]] == ["bare", "pool"]
    told = {line[0]: line[1:] for line in lines[5:]}
    assert {"board", "heat", "load", "measured", "versions"} <= told.keys()
    assert "model lite, masks off" in bench.stdout
    assert max(map(len, bench.stdout.splitlines()[:5])) <= 80


def test_what_was_not_measured_is_null(mark: str) -> None:
    bench = edge_pose("bench", "--quick", "--seconds", "0.5", "--json", "--only", "bare", MARK=mark)
    found = json.loads(bench.stdout)
    assert found["ratios"] == found["spread"] == dict.fromkeys(RATIOS)
    assert found["rounds"] == 3
    assert found["fixed_rate"]["cpu_ratio"] is found["settings"]["broker"] is None


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--only", "fast"], 78, "bench's options: --only = fast: one of bare, seed, pool"),
        (["--model", "nowhere.task"], 69, "pose.model = 'nowhere.task'"),
        (["--only", "pool", "--model", "{damaged}"], 69, "the loop pool: model "),
        (["--only", "bare", "--model", "{damaged}"], 70, "the loop bare failed: "),
    ],
    ids=["only", "no model", "damaged model", "bare"],
)
def test_a_mistake_is_one_line(options: list[str], code: int, told: str, tmp_path: Path, mark: str) -> None:
    damaged = tmp_path / "damaged.task"
    damaged.write_text("not a model")
    bench = edge_pose("bench", *SHORT, *(each.format(damaged=damaged) for each in options), MARK=mark)
    assert (bench.returncode, bench.stdout) == (code, "")
    lines = [line for line in bench.stderr.splitlines() if "the machine was busy" not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"edge-pose: {told}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_nothing_stays(number: signal.Signals, mark: str) -> None:
    command = [*COMMAND, "bench", "--seconds", "60", "--only", "all"]
    pipe = subprocess.PIPE
    environment = {**os.environ, "MARK": mark}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, process_group=0) as bench:
        eventually(lambda: any("edge.bench.child" in each for each in descendants(mark)), 30)
        assert len(descendants(mark)) >= 4, "the bench, its broker, its Rerun server and its child"
        os.killpg(bench.pid, number)  # as a terminal does: to everything in the foreground
        out, told = bench.communicate(timeout=20)
    eventually(lambda: not descendants(mark), 10)
    if number is not signal.SIGKILL:
        assert (bench.returncode, out) == (130, "")
        lines = [line for line in told.splitlines() if "the machine was busy" not in line]
        assert lines == ["edge-pose: interrupted"]
