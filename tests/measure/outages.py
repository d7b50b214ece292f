"""What an absent or frozen broker and viewer cost, against sinks switched off, and all of it against a bare MediaPipe
loop on the same frames. Unpaced, so that every microsecond shows.

usage: python -m tests.measure.outages [--seconds 15] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edge
from edge.bench import rounds
from edge.bench.measurement import Loop, Task
from edge.estimators.models.store import ModelStore
from tests.servers import free_port, mosquitto, rerun_server

CLIP = Path(edge.__file__).parent / "media" / "one_person_640x480_30fps.mp4"
WARM_UP_S = 4.0


@dataclass(frozen=True)
class Run:
    """Figures of one run, after the warm-up."""

    frames_per_s: float
    cpu_ms_per_frame: float
    memory_mib: tuple[float, float]  # a third into the run, and at its end
    stop_s: float
    drops: dict[str, int]
    sent: dict[str, int]


def daemon(settings: list[str], seconds: float, frozen: list[subprocess.Popen[bytes]]) -> Run:
    """Run the daemon; a third into the run `frozen` are stopped, and continued after its end."""
    common = [f"camera.front.source={CLIP}", "camera.front.loop=true", "camera.front.pace=unlimited"]
    common += ["mqtt.landmarks_hz=unlimited"]
    command = [sys.executable, "-m", "tests.measure.probe", *common, *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        lines: list[dict[str, float]] = []
        for text in child.stdout:
            lines.append(json.loads(text))
            passed_s = lines[-1]["s"] - lines[0]["s"]
            if passed_s > seconds / 3 and frozen and not lines[-1].get("frozen"):
                for process in frozen:
                    process.send_signal(signal.SIGSTOP)
            if passed_s >= seconds:
                break
        asked_s = time.monotonic()
        child.send_signal(signal.SIGTERM)
        last = json.loads(list(child.stdout)[-1])
        child.wait(timeout=10)
        stop_s = time.monotonic() - asked_s
    for process in frozen:
        process.send_signal(signal.SIGCONT)
    steady = [line for line in lines if line["s"] - lines[0]["s"] >= WARM_UP_S]
    frames, spent_s = steady[-1]["frames"] - steady[0]["frames"], steady[-1]["s"] - steady[0]["s"]
    return Run(
        frames_per_s=frames / spent_s,
        cpu_ms_per_frame=1000 * (steady[-1]["cpu_s"] - steady[0]["cpu_s"]) / frames,
        memory_mib=(lines[len(lines) // 3]["anonymous_mib"], lines[-1]["anonymous_mib"]),
        stop_s=stop_s,
        drops=last["drops"],
        sent=last["sent"],
    )


def bare(seconds: float) -> Run:
    """MediaPipe's own VIDEO loop on frames in memory, masks on: the one that `edge-pose bench` compares with."""
    measured = rounds.run(Task(Loop.BARE, str(ModelStore().ensure("full").path), seconds))
    return Run(measured.frames_per_s, measured.cpu_ms, (0, 0), 0, {}, {})


@contextlib.contextmanager
def scenario(name: str) -> Iterator[tuple[list[str], list[subprocess.Popen[bytes]]]]:
    """Settings and the processes to freeze."""
    with contextlib.ExitStack() as stack:
        recordings = stack.enter_context(tempfile.TemporaryDirectory())
        record = f"rerun.record_dir={recordings}"
        if name == "no sinks":
            yield [], []
        elif name == "absent":
            broker, viewer = free_port(), free_port()
            yield (
                [f"mqtt.url=mqtt://127.0.0.1:{broker}", f"rerun.url=rerun+http://127.0.0.1:{viewer}/proxy", record],
                [],
            )
        else:
            broker = stack.enter_context(mosquitto())
            viewer = stack.enter_context(rerun_server())
            frozen = [broker.process, viewer.process] if name == "frozen" else []
            yield [f"mqtt.url={broker.url}", f"rerun.url={viewer.url}", record], frozen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    names = ["bare MediaPipe", "no sinks", "all live", "absent", "frozen"]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(arguments.rounds):
        # In another order each time: what a machine does over minutes should not meet one of them more than another.
        for name in names[number:] + names[:number]:
            if name == "bare MediaPipe":
                run = bare(arguments.seconds - WARM_UP_S)
            else:
                with scenario(name) as (settings, frozen):
                    run = daemon(settings, arguments.seconds, frozen)
            runs[name].append(run)
            print(f"round {number}: {name}: {run}", flush=True)
    print(f"\n{'':16}{'frames/s':>9}{'of bare':>9}{'of none':>9}{'CPU ms':>8}{'MiB then, at end':>18}{'stop s':>8}")
    for name in names:
        ratios = [
            [run.frames_per_s / other.frames_per_s for run, other in zip(runs[name], runs[base], strict=True)]
            for base in ("bare MediaPipe", "no sinks")
        ]
        middle = [statistics.median(values) for values in ratios]
        fps = statistics.median(run.frames_per_s for run in runs[name])
        cpu = statistics.median(run.cpu_ms_per_frame for run in runs[name])
        memory = [statistics.median(run.memory_mib[at] for run in runs[name]) for at in (0, 1)]
        stop = max(run.stop_s for run in runs[name])
        print(
            f"{name:16}{fps:9.1f}{middle[0]:9.2f}{middle[1]:9.2f}{cpu:8.1f}{memory[0]:9.0f}{memory[1]:9.0f}{stop:8.2f}"
        )
    for name in names[1:]:
        print(f"{name} drops: {runs[name][-1].drops}")


if __name__ == "__main__":
    main()
