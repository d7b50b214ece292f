"""`edge-pose bench`: how fast the daemon is on this machine, in times of MediaPipe's own loop."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge.cli.local_broker import BrokerKind, local_broker
from edge.cli.local_viewer import local_hub
from edge.cli.model_progress import progress_bar
from edge.cli.options import Json, leave, reported_errors
from edge.errors import BoardError, ConfigError, ConfigProblem, ExitCode
from edge.pacing import Deadline

if TYPE_CHECKING:
    from edge.bench.machine import Condition, Machine
    from edge.bench.measurement import Loop, Measured, Task
    from edge.bench.rounds import Ratio, Round

_QUICK_S = 50.0
"""When the last loop of a quick run should be over; the rest of the minute is for one that takes longer than those
before it."""
_QUICK_ROUNDS = 3
_QUICK_SECONDS = 1.5

_FIXED_RATE = "fixed_rate"
_MOST_WORKERS = 4
_WHOLE = 0.99
"""The share of messages that has to arrive for a figure to be one of every frame."""
_STEADY = 1.25
"""The highest quotient of a ratio's most and least that nobody need wonder about."""


def bench(
    model: Annotated[str, typer.Option(help="lite, full, heavy, or the path of a .task file.")] = "full",
    rounds: Annotated[int, typer.Option(min=1, help="How often each loop is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each loop is measured in a round.")] = 5.0,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="In a minute: instead of --rounds and --seconds up to 3 and 1.5.")
    ] = False,
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Segmentation, in all loops.")] = True,
    people: Annotated[int, typer.Option(min=1, max=16, help="How many people to look for; one is in the clip.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, max=16, help="The daemon's estimators a camera; default: one a core, up to 4.")
    ] = None,
    cameras: Annotated[int, typer.Option(min=1, max=16, help="The daemon's cameras, each with the same clip.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this only: bare, seed, pool, mqtt, all, all_capped or fixed_rate. May be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Frames a second through the daemon, by what is switched on, against MediaPipe's own loop and Rerun's example.

    Broker and Rerun server run on this machine too, and nothing leaves it. What the figures mean: docs/performance.md.

    Exit codes: 0, also when figures are to be doubted (a line says so), 69 the model can't be had, 70 a loop failed,
    78 this processor can't run MediaPipe or an option is wrong, 130 after Ctrl-C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the first is ignored in what a shell has put in the background
        signal.signal(number, signal.default_int_handler)
    try:
        with reported_errors():
            code = _bench(
                _Plan(
                    model=model,
                    rounds=_QUICK_ROUNDS if quick else rounds,
                    seconds=_QUICK_SECONDS if quick else seconds,
                    quick=quick,
                    masks=masks,
                    people=people,
                    workers=workers,
                    cameras=cameras,
                    only=tuple(only or ()),
                ),
                as_json=as_json,
            )
    except KeyboardInterrupt:
        print("edge-pose: interrupted", file=sys.stderr)
        code = ExitCode.INTERRUPTED
    leave(code)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was asked for."""

    model: str
    rounds: int
    seconds: float
    quick: bool
    masks: bool
    people: int
    workers: int | None
    cameras: int
    only: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Result:
    """All that is told."""

    plan: _Plan
    workers: int
    model: Mapping[str, str]
    machine: Machine
    before: Condition
    after: Condition
    others: float | None
    versions: Mapping[str, str]
    broker: str
    rounds: Sequence[Round]


def _bench(plan: _Plan, *, as_json: bool) -> ExitCode:
    loops = _loops(plan.only)
    from edge.app import versions
    from edge.bench import machine
    from edge.bench.measurement import Task
    from edge.estimators import board_set
    from edge.estimators.mediapipe import missing_features
    from edge.estimators.models.store import ModelStore

    if missing := missing_features():  # MediaPipe's library would end a loop with SIGABRT
        remedy = f"install requirements/{board_set.ARMV8_0}.txt, whose MediaPipe can do without"
        raise BoardError(f"this processor has no {', '.join(sorted(missing))}; {remedy}")
    with progress_bar(plan.model) as progress:
        model = ModelStore().ensure(plan.model, progress=progress)
    workers = plan.workers or min(machine.usable_cores(), _MOST_WORKERS)
    before, watch = machine.condition(), machine.CpuWatch()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if machine.busy(before):
        told = f"the machine was busy in the last minute (load {before.load:.1f}); while it is, figures are worse"
        console.print(f"edge-pose: {told}", markup=False)
    task = Task(
        loop=loops[0],
        model=str(model.path),
        seconds=plan.seconds,
        masks=plan.masks,
        people=plan.people,
        workers=workers,
        cameras=plan.cameras,
    )
    servers = _Servers()
    with console.status("", spinner="line") if console.is_terminal else contextlib.nullcontext() as status:

        def show(text: str) -> None:
            if status is not None:
                status.update(text)

        measured = _measure(plan, loops, task, servers, show)
    result = _Result(
        plan=plan,
        workers=workers,
        model={"name": model.name, "sha256": model.sha256},
        machine=machine.machine(),
        before=before,
        after=machine.condition(),
        others=watch.others(),
        versions=versions(),
        broker=servers.broker,
        rounds=measured,
    )
    if as_json:
        print(json.dumps(_as_json(result), indent=1))
    else:
        _print(result)
    return ExitCode.OK


def _loops(only: Sequence[str]) -> list[Loop]:
    """The loops behind the names. Raises ConfigError for names that there are not."""
    from edge.bench.measurement import FREE_RUNNING, PACED

    if not only:
        return [*FREE_RUNNING, *PACED]
    names: dict[str, Sequence[Loop]] = {**{loop.value: (loop,) for loop in FREE_RUNNING}, _FIXED_RATE: PACED}
    if strange := [name for name in only if name not in names]:
        expected = f"one of {', '.join(names)}"
        raise ConfigError([ConfigProblem("bench's options", "--only", name, expected) for name in strange])
    return [loop for name, behind in names.items() if name in only for loop in behind]


def _measure(
    plan: _Plan, loops: Sequence[Loop], task: Task, servers: _Servers, show: Callable[[str], None]
) -> list[Round]:
    """The rounds. A quick run measures what is compared within a round once, and the rest as far as time allows."""
    from edge.bench.measurement import PACED
    from edge.bench.rounds import order, run

    parts = [[loop for loop in loops if loop not in PACED], [loop for loop in loops if loop in PACED]]
    left = Deadline(_QUICK_S)
    done: list[Round] = []
    longest_s = 0.0
    for number in range(plan.rounds):
        one: dict[Loop, Measured] = {}
        for part in parts:
            if plan.quick and len(part) * longest_s > left.left_s():
                continue
            for loop in order(part, number):
                show(f"round {number + 1} of {plan.rounds}: {loop}")
                began_s = time.monotonic()
                with servers.for_loop(replace(task, loop=loop)) as complete:
                    one[loop] = run(complete)
                longest_s = max(longest_s, time.monotonic() - began_s)
        if one:
            done.append(one)
    return done


class _Servers:
    """A broker and a Rerun server for each loop that needs them, new ones each time: what one loop has left in them
    does not weigh upon the next."""

    def __init__(self) -> None:
        self.broker = ""  # which one it is, once one was needed

    @contextlib.contextmanager
    def for_loop(self, task: Task) -> Iterator[Task]:
        """`task` with the addresses of what its loop needs."""
        from edge.bench.measurement import WITH_BROKER, WITH_RERUN

        with contextlib.ExitStack() as stack:
            if task.loop in WITH_BROKER:
                broker = stack.enter_context(local_broker(BrokerKind.AUTO))
                self.broker = broker.kind
                task = replace(task, broker=broker.url, mqtt_version=broker.version)
            if task.loop in WITH_RERUN:
                task = replace(task, hub=stack.enter_context(local_hub()))
            yield task


def _as_json(result: _Result) -> dict[str, Any]:
    from edge.bench.measurement import Loop
    from edge.bench.rounds import cpu_ratio, ratios

    found = ratios(result.rounds)
    cpu = cpu_ratio(result.rounds)
    return {
        "ratios": {name: None if ratio is None else _rounded(ratio.median) for name, ratio in found.items()},
        "spread": {name: None if ratio is None else _spread(ratio) for name, ratio in found.items()},
        "rounds": len(result.rounds),
        "frames_per_s": {loop.value: _rounded(value) for loop, value in _medians(result, "frames_per_s").items()},
        "cpu_ms_per_frame": {loop.value: _rounded(value) for loop, value in _medians(result, "cpu_ms").items()},
        "delivered": {loop.value: round(value, 4) for loop, value in _delivered(result).items()},
        "with_people": {loop.value: round(value, 4) for loop, value in _medians(result, "with_people").items()},
        "fixed_rate": {
            "fps": 30,
            "cpu_ratio": None if cpu is None else _rounded(cpu.median),
            "cpu_spread": None if cpu is None else _spread(cpu),
            "overhead_ms": _overhead(result),
            "workers": max(
                (one[Loop.PACED_ALL].workers for one in result.rounds if Loop.PACED_ALL in one), default=None
            ),
        },
        "settings": {
            "model": dict(result.model),
            "seconds": result.plan.seconds,
            "masks": result.plan.masks,
            "people": result.plan.people,
            "workers": result.workers,
            "cameras": result.plan.cameras,
            "broker": result.broker or None,
        },
        "machine": {
            **_facts(result.machine),
            "before": _facts(result.before),
            "after": _facts(result.after),
            "others": None if result.others is None else _rounded(result.others),
        },
        "versions": dict(result.versions),
        "doubts": _doubts(result),
    }


def _rounded(value: float) -> float:
    return round(value, 3)


def _facts(of: Machine | Condition) -> dict[str, Any]:
    return {name: _rounded(value) if isinstance(value, float) else value for name, value in asdict(of).items()}


def _spread(ratio: Ratio) -> list[float]:
    return [_rounded(ratio.least), _rounded(ratio.most)]


def _medians(result: _Result, figure: str) -> dict[Loop, float]:
    """Each loop's median of a figure over the rounds, in the order in which they are listed."""
    from edge.bench.measurement import Loop

    by_loop = {loop: [getattr(one[loop], figure) for one in result.rounds if loop in one] for loop in Loop}
    return {loop: statistics.median(values) for loop, values in by_loop.items() if values}


def _delivered(result: _Result) -> dict[Loop, float]:
    """The worst round's share of what a loop's receivers took."""
    from edge.bench.measurement import WITH_BROKER

    shares = {loop: [one[loop].delivered for one in result.rounds if loop in one] for loop in sorted(WITH_BROKER)}
    return {loop: min(values) for loop, values in shares.items() if values}


def _overhead(result: _Result) -> dict[str, float] | None:
    """Medians over the rounds of the percentiles at the fixed rate, in ms."""
    from edge.bench.measurement import Loop

    found = [each for one in result.rounds if Loop.PACED_ALL in one and (each := one[Loop.PACED_ALL].overhead)]
    if not found:
        return None
    return {
        name: _rounded(statistics.median(getattr(each, f"{name}_ms") for each in found))
        for name in ("p50", "p95", "p99")
    }


def _doubts(result: _Result) -> list[str]:
    """Why these figures may not be what the machine can do; a line each."""
    from edge.bench import machine
    from edge.bench.measurement import PACED_FPS, Loop
    from edge.bench.rounds import ratios

    doubts = []
    if result.others is not None and result.others > machine.BUSY:
        doubts.append(f"other programs took {result.others:.0%} of the processor meanwhile")
    if result.after.throttled:
        doubts.append("the board runs slower now because of heat or a weak supply")
    if len(result.rounds) == 1:
        doubts.append("one round: what disturbed the machine meanwhile can't be told from what it is")
    doubts += [
        f"{name}: {ratio.least:.2f} to {ratio.most:.2f} from round to round"
        for name, ratio in ratios(result.rounds).items()
        if ratio is not None and ratio.most > _STEADY * ratio.least
    ]
    doubts += [
        f"{loop}: {share:.1%} of the messages arrived, so its figure is not one of every frame"
        for loop, share in _delivered(result).items()
        if share < _WHOLE
    ]
    doubts += [
        f"{loop}: somebody was found in {share:.0%} of the frames only"
        for loop, share in _medians(result, "with_people").items()
        if share < 0.9
    ]
    rates = _medians(result, "frames_per_s")
    doubts += [
        f"{loop}: {rates[loop]:.1f} frames/s instead of {PACED_FPS:g}, this machine can't keep up"
        for loop in (Loop.PACED_BARE, Loop.PACED_ALL)
        if loop in rates and rates[loop] < 0.95 * PACED_FPS
    ]
    if result.broker.startswith("amqtt"):
        doubts.append("mosquitto is not installed: the broker is amqtt, which is in Python and much slower")
    return doubts


_RATIO_NAMES = {
    "pool": "estimators alone / bare loop",
    "mqtt": "MQTT / bare loop",
    "all": "MQTT and Rerun / bare loop",
    "all_capped": "MQTT and Rerun at 30 Hz / bare loop",
    "seed": "MQTT and Rerun / Rerun's example",
    "seed_capped": "MQTT and Rerun at 30 Hz / Rerun's example",
}
_LOOP_NAMES = {
    "bare": "MediaPipe's own loop",
    "seed": "Rerun's example",
    "pool": "daemon without receivers",
    "mqtt": "daemon, MQTT",
    "all": "daemon, MQTT and Rerun",
    "all_capped": "daemon, MQTT and Rerun at 30 Hz",
    "paced_bare": "MediaPipe's own, 30 frames/s",
    "paced_all": "all_capped, 30 frames/s",
}


def _print(result: _Result) -> None:
    shown = _as_json(result)
    console = Console(highlight=False, soft_wrap=True)
    plan, machine = result.plan, result.machine
    if any(ratio is not None for ratio in shown["ratios"].values()):
        table = _table("ratio", "", "median", "least", "most")
        for name, ratio in shown["ratios"].items():
            if ratio is not None:
                least, most = (f"{each:.2f}" for each in shown["spread"][name])
                spread = (least, most) if shown["rounds"] > 1 else ("", "")
                table.add_row(name, _RATIO_NAMES[name], f"{ratio:.2f}x", *spread)
        console.print(table)
    else:
        console.print("no ratio: each wants bare or seed beside what is compared with it", style="dim")
    table = _table("loop", "", "frames/s", "CPU ms/frame", "delivered")
    for name, rate in shown["frames_per_s"].items():
        share = shown["delivered"].get(name)
        cpu = shown["cpu_ms_per_frame"][name]
        table.add_row(name, _LOOP_NAMES[name], f"{rate:.1f}", f"{cpu:.1f}", "" if share is None else f"{share:.1%}")
    console.print(table)
    fixed = shown["fixed_rate"]
    if fixed["cpu_ratio"] is not None:
        at_work = f"workers at work: {fixed['workers']}"
        console.print(f"at 30 frames/s, all on: {fixed['cpu_ratio']:.2f}x the bare loop's CPU time a frame; {at_work}")
    if fixed["overhead_ms"] is not None:
        times = ", ".join(f"{name} {value:.1f}" for name, value in fixed["overhead_ms"].items())
        console.print(f"from a frame's arrival to its hand-over to the broker, less inference: {times} ms")
    console.print()
    facts = {
        "board": f"{machine.board}, {machine.processor}, {machine.cores} of {machine.cores_present} cores, "
        f"{machine.memory_mb / 1000:.1f} GB",
        "heat": f"{_degrees(result.before)} before, {_degrees(result.after)} after{_throttled(result.after)}",
        "load": f"{result.before.load:.2f} at the start"
        + ("" if result.others is None else f", {result.others:.0%} taken by other programs meanwhile"),
        "measured": f"{_count(len(result.rounds), 'round')} of {plan.seconds:g} s a loop, "
        f"model {result.model['name']}, masks {'on' if plan.masks else 'off'}, "
        f"{_count(result.workers, 'worker')} a camera, {_count(plan.cameras, 'camera')} (frames/s are the sum), "
        f"max_people {plan.people}",
        "versions": ", ".join(f"{name} {version}" for name, version in result.versions.items())
        + (f", {result.broker}" if result.broker else ""),
    }
    for name, text in facts.items():
        console.print(f"{name:<9} {text}", markup=False)
    for doubt in shown["doubts"]:
        console.print(f"[yellow]![/] {doubt}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    return table


def _degrees(condition: Condition) -> str:
    return "no sensor" if condition.temperature_celsius is None else f"{condition.temperature_celsius:.0f} °C"


def _throttled(condition: Condition) -> str:
    return {True: ", throttled", False: ", not throttled", None: ""}[condition.throttled]
