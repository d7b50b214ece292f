"""What faults of the link to a hub cost: the daemon, nginx of deploy/hub with client certificates, Rerun's server.

usage: python -m tests.measure.hub_faults [--only NAME...] [--parts rows stop speed] [--seconds 60] [--rounds 1]
           [--record] [--set KEY=VALUE...] [--json FILE]

Needs root: it runs in a network namespace of its own, and where the network itself fails, the daemon in another one.
Three parts for each fault:

rows    A camera of 30 frames/s. Seconds from the fault's end until the daemon says that it is live and the hub has a
        frame younger than a second; how long an offer to a lane takes; anonymous memory over that before the fault;
        what a viewer that joins later finds of what was offered: rows that are missing, of which the daemon has counted
        so many as dropped, rows that are there twice, pictures that can't be decoded; how old rows are when they
        arrive, while older ones follow beside them.
stop    `edge-pose run` is asked to end in the middle of the fault: seconds, and its exit code.
speed   A camera that is as fast as the daemon: frames/s during the fault, by those before it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
from rerun.chunk import RrdReader

from tests.cli.command import COMMAND
from tests.conftest import CLIP, eventually
from tests.measure.cable import Cable
from tests.measure.link_probe import CAMERA
from tests.rerun_log import reading
from tests.rerun_log.hubs import ended, nginx, rerun
from tests.rerun_log.onlooker import Onlooker
from tests.secured_broker import HOST, ROOT, Authorities
from tests.servers import free_port

VIDEO, POINTS = f"/camera/{CAMERA}/video", f"/camera/{CAMERA}/video/pose/points"

_WARM_UP_S = 10.0
_IDLE_S = 5.0
"""So much of the warm-up, its end, is what memory is compared with."""

_FRESH_S = 1.0
_PATIENCE_S = 120.0
_SETTLED = 25
"""So few entries are behind while all is well: what was sent within the last second or two."""

_BEFORE_STOP_S = 6.0
_SPEED_S = 12.0


class Site:
    """A hub as shipped, but for paths and ports, and a device's certificate. cable: by which the daemon reaches it."""

    def __init__(self, folder: Path, cable: Cable | None) -> None:
        self.cable = cable
        self.server_port, port, page_port = free_port(), free_port(), free_port()
        (folder / "site").mkdir()
        self._authorities = authorities = Authorities(folder / "site")
        authorities.server("hub", HOST, "127.0.0.1", Cable.NEAR)
        authorities.device("hall")
        for suffix, made in zip(("pem", "key"), authorities.certificate("hub"), strict=True):
            shutil.copy(made, folder / f"hub.{suffix}")
        for name in ("ca", "crl"):
            parts = ((authorities.pki / who / f"{name}.pem").read_text() for who in ("devices", "people"))
            (folder / f"{name}.pem").write_text("".join(parts))
        text = re.sub("access_log .*;", "access_log off;", (ROOT / "deploy/hub/nginx.conf").read_text())
        changes = {
            "/etc/edge-pose-hub": str(folder),
            "/run/edge-pose-hub": str(folder),
            "[::]:9876": f"[::]:{port}",
            "127.0.0.1:9875": f"127.0.0.1:{self.server_port}",
            "127.0.0.1:9874": f"127.0.0.1:{page_port}",
        }
        for before, after in changes.items():
            assert before in text, before
            text = text.replace(before, after)
        (folder / "nginx.conf").write_text(text)
        self.nginx = nginx(folder, port)
        self.rerun = rerun(folder, self.server_port)
        self._run = folder / "run.conf"
        self._host = "127.0.0.1" if cable is None else Cable.NEAR
        self._port = port

    def start(self) -> None:
        """Rerun's server, and nginx, which says that it is another run: as systemd does when the former has ended."""
        self.rerun.start()
        self._run.write_text(f"add_header edge-pose-run {time.time_ns():x} always;\n")
        self.nginx.kill()
        self.nginx.start()

    def kill(self) -> None:
        self.nginx.kill()
        self.rerun.kill()

    @property
    def settings(self) -> list[str]:
        """The daemon's, to push here."""
        certificate, key = self._authorities.certificate("hall")
        identity = {"ca_file": self._authorities.servers_ca, "cert_file": certificate, "key_file": key}
        url = f"rerun.url=rerun+https://{self._host}:{self._port}/proxy"
        return ["device=hall", url, *(f"rerun.{name}={file}" for name, file in identity.items())]

    def wrapped(self, command: Sequence[str]) -> list[str]:
        return [*(self.cable.there if self.cable is not None else ()), *command]


@dataclass(frozen=True)
class Fault:
    """lasts_s: None for as long as asked for. from_start: there is nothing else when the daemon starts."""

    begin: Callable[[Site], None]
    end: Callable[[Site], None]
    lasts_s: float | None = None
    from_start: bool = False
    on_cable: bool = False


def _cable(site: Site) -> Cable:
    assert site.cable is not None, "the fault is one of the cable"
    return site.cable


FAULTS = {
    "absent at start": Fault(Site.kill, Site.start, from_start=True),
    "rerun killed": Fault(lambda site: site.rerun.kill(), Site.start, lasts_s=0),
    "rerun killed, 10 s": Fault(lambda site: site.rerun.kill(), Site.start, lasts_s=10),
    "nginx killed": Fault(lambda site: site.nginx.kill(), lambda site: site.nginx.start(), lasts_s=0),
    "rerun frozen": Fault(lambda site: site.rerun.freeze(), lambda site: site.rerun.thaw()),
    "nginx frozen": Fault(lambda site: site.nginx.freeze(), lambda site: site.nginx.thaw()),
    "link down": Fault(lambda site: _cable(site).unplug(), lambda site: _cable(site).plug(), on_cable=True),
    "hub restarted": Fault(Site.kill, Site.start, lasts_s=10),
    "packets dropped": Fault(
        lambda site: _cable(site).become(loss=1.0), lambda site: _cable(site).become(), on_cable=True
    ),
    "200 ms": Fault(lambda site: _cable(site).become(delay_s=0.1), lambda site: _cable(site).become(), on_cable=True),
    "5 %, 200 ms": Fault(
        lambda site: _cable(site).become(delay_s=0.1, loss=0.05), lambda site: _cable(site).become(), on_cable=True
    ),
}
"""By name. Of the last two each way has half of the delay, and loses so many packets."""


class Daemon:
    """tests.measure.link_probe as a process, and what it says."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def has_frames(self) -> bool:
        assert self.process.poll() is None, "the daemon has ended"
        return bool(self.lines) and self.lines[-1]["frames"] > 0

    def stop(self) -> dict[str, Any]:
        """What it says at its end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self._reader.join()
        return self.lines.pop()

    def of(self, key: str, begin_s: float, end_s: float = math.inf) -> list[Any]:
        return [line[key] for line in list(self.lines) if begin_s <= line["s"] < end_s]

    def rate(self, begin_s: float, end_s: float) -> float:
        """Frames a second."""
        lines = [line for line in list(self.lines) if begin_s <= line["s"] < end_s]
        return float((lines[-1]["frames"] - lines[0]["frames"]) / (lines[-1]["s"] - lines[0]["s"]))

    def _read(self) -> None:
        assert self.process.stdout is not None, "it was asked for"
        for line in self.process.stdout:
            self.lines.append(json.loads(line))


@dataclass(frozen=True)
class Rows:
    """live_s: after the fault's end; None where that did not come. age: when they arrived, of rows captured since
    then, as long as older ones follow. meanwhile: of rows captured during the fault, where it let some through.
    Counts are of both entities together. uncounted: rows that are missing and not counted as dropped. undecoded: of
    pictures, with those that continue one which is not there."""

    live_s: float | None
    offer_p99_ms: float
    offer_most_ms: float
    memory_over_idle_mib: float
    idle_mib: float
    offered: int
    missing: int
    uncounted: int
    doubled: int
    undecoded: int
    backfill_s: float
    age_p50_s: float | None
    age_p99_s: float | None
    meanwhile_p50_s: float | None
    meanwhile_p99_s: float | None
    states: dict[str, int]
    stop_s: float
    drops: dict[str, int]


@dataclass(frozen=True)
class Stop:
    stop_s: float
    exit_code: int


@dataclass(frozen=True)
class Speed:
    before: float
    during: float

    @property
    def ratio(self) -> float:
        return self.during / self.before


@contextlib.contextmanager
def place(fault: Fault) -> Iterator[tuple[Site, Path]]:
    """A site with its hub running, and a folder for what else there is."""
    with tempfile.TemporaryDirectory(prefix="edge-pose-faults-") as scratch, contextlib.ExitStack() as stack:
        cable = None
        if fault.on_cable:
            cable = Cable()
            stack.callback(cable.close)
        site = Site(Path(scratch), cable)
        stack.enter_context(ended(site.nginx, site.rerun))
        site.start()
        yield site, Path(scratch)


@contextlib.contextmanager
def daemon(site: Site, folder: Path, fps: int, options: argparse.Namespace) -> Iterator[Daemon]:
    recording = [f"rerun.record_dir={folder}/recordings"] if options.record else []
    # Another estimator that joins later would look like memory of the link's.
    settings = [f"camera.{CAMERA}.source=synthetic", "pose.workers=2", *site.settings, *recording, *options.set]
    command = [sys.executable, "-m", "tests.measure.link_probe", str(fps), *settings]
    found = Daemon(site.wrapped(command), folder / "daemon.log")
    try:
        yield found
        sys.stderr.write((folder / "daemon.log").read_text() if options.log else "")
    finally:
        found.process.kill()
        found.process.wait()


def rows(fault: Fault, options: argparse.Namespace) -> Rows:
    with place(fault) as (site, folder), contextlib.closing(Onlooker(site.server_port)) as onlooker:
        if fault.from_start:
            fault.begin(site)
        with daemon(site, folder, 30, options) as device:
            eventually(device.has_frames, 60)
            time.sleep(_WARM_UP_S)
            begun_s = time.time()
            idle_mib = statistics.median(device.of("anonymous_mib", begun_s - _IDLE_S))
            if not fault.from_start:
                fault.begin(site)
            time.sleep(options.seconds if fault.lasts_s is None else fault.lasts_s)
            fault.end(site)
            ended_s = time.time()

            def live_at() -> float | None:
                fresh_s = next((each.at_s for each in _fresh(onlooker) if each.at_s > ended_s), None)
                lines = [line for line in list(device.lines) if line["s"] >= ended_s]
                live_s = next((line["s"] for line in lines if line["state"] == "live"), None)
                return None if fresh_s is None or live_s is None else max(fresh_s, live_s)

            _settle(lambda: live_at() is not None, _PATIENCE_S / 4)
            _settle(lambda: device.lines[-1]["behind"] < _SETTLED)
            time.sleep(3)
            asked_s = time.monotonic()
            last = device.stop()
            stop_s = time.monotonic() - asked_s
            live_s = live_at()
        seen = folder / "seen.rrd"
        expect = {entity: len(last[name]) for entity, name in ((VIDEO, "video"), (POINTS, "points"))}
        url = f"rerun+http://127.0.0.1:{site.server_port}/proxy"
        reading.received(url, seen, expect=expect)
        if options.keep:
            shutil.copytree(folder, options.keep, dirs_exist_ok=True)
        pictures = _rows_in_store(seen, VIDEO, "VideoStream:sample")
        points = _rows_in_store(seen, POINTS, "Points2D:positions")
    found = {VIDEO: [seq for seq, _ in pictures], POINTS: [seq for seq, _ in points]}
    samples = [bytes(cell[0]) for _, cell in sorted(dict(pictures).items())]
    offered = {VIDEO: last["video"], POINTS: last["points"]}
    missing = {entity: sorted({*seqs} - {*found[entity]}) for entity, seqs in offered.items()}
    dropped = sum(items for name, items in last["drops"].items() if name.startswith("rerun "))
    ages, meanwhile, backfill_s = _ages(onlooker, begun_s, ended_s, ended_s if live_s is None else live_s)
    offers_ms = sorted(took_us / 1000 for at_s, took_us in last["offers_us"] if at_s > begun_s)
    return Rows(
        live_s=None if live_s is None else round(live_s - ended_s, 2),
        offer_p99_ms=offers_ms[int(0.99 * len(offers_ms))],
        offer_most_ms=offers_ms[-1],
        memory_over_idle_mib=round(max(device.of("anonymous_mib", begun_s)) - idle_mib, 1),
        idle_mib=idle_mib,
        offered=sum(map(len, offered.values())),
        missing=sum(map(len, missing.values())),
        uncounted=max(0, sum(map(len, missing.values())) - dropped),
        doubled=sum(len(seqs) - len({*seqs}) for seqs in found.values()),
        undecoded=_undecoded(samples),
        backfill_s=round(backfill_s, 1),
        age_p50_s=_quantile(ages, 0.5),
        age_p99_s=_quantile(ages, 0.99),
        meanwhile_p50_s=_quantile(meanwhile, 0.5),
        meanwhile_p99_s=_quantile(meanwhile, 0.99),
        states=dict(Counter(device.of("state", begun_s, ended_s))),
        stop_s=round(stop_s, 2),
        drops=last["drops"],
    )


def stop(fault: Fault, options: argparse.Namespace) -> Stop:
    with place(fault) as (site, folder), contextlib.closing(Onlooker(site.server_port)) as onlooker:
        if fault.from_start:
            fault.begin(site)
        settings = [f"camera.{CAMERA}.source={CLIP}", f"camera.{CAMERA}.loop=true", *site.settings, *options.set]
        command = [*COMMAND, "run", *(part for each in settings for part in ("--set", each))]
        with (folder / "daemon.log").open("ab") as log:
            process = subprocess.Popen(site.wrapped(command), stdout=log, stderr=log)
        try:
            if not fault.from_start:
                eventually(lambda: onlooker.arrivals, 60)
            time.sleep(_WARM_UP_S)
            if not fault.from_start:
                fault.begin(site)
            time.sleep(min(_BEFORE_STOP_S, _BEFORE_STOP_S if fault.lasts_s is None else fault.lasts_s / 2))
            asked_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
            stop_s = time.monotonic() - asked_s
        finally:
            process.kill()
            process.wait()
        sys.stderr.write((folder / "daemon.log").read_text() if options.log else "")
        with contextlib.suppress(ProcessLookupError):
            fault.end(site)
    return Stop(round(stop_s, 2), code)


def speed(fault: Fault, options: argparse.Namespace) -> Speed:
    with place(fault) as (site, folder), daemon(site, folder, 0, options) as device:
        eventually(device.has_frames, 60)
        time.sleep(_WARM_UP_S / 2)
        if fault.from_start:  # the other way round: with a hub comes before
            time.sleep(_WARM_UP_S)
        begun_s = time.time()
        time.sleep(_SPEED_S)
        fault.begin(site)
        fault_s = time.time()
        if fault.lasts_s is not None:
            time.sleep(min(fault.lasts_s, _SPEED_S))
            fault.end(site)
        time.sleep(max(0.0, fault_s + _SPEED_S - time.time()))
        until_s = time.time()
        if fault.lasts_s is None:
            fault.end(site)
        before, during = device.rate(begun_s, fault_s), device.rate(fault_s, until_s)
    return Speed(round(before, 1), round(during, 1))


def _settle(condition: Callable[[], bool], timeout_s: float = _PATIENCE_S) -> None:
    """Until it holds, or for so long."""
    with contextlib.suppress(AssertionError):
        eventually(condition, timeout_s)


def _fresh(onlooker: Onlooker) -> Iterator[Any]:
    """Arrivals of pictures that were new when they came."""
    for each in list(onlooker.arrivals):
        if each.entity == VIDEO and each.at_s - max(each.captured_s) < _FRESH_S:
            yield each


def _ages(onlooker: Onlooker, begun_s: float, ended_s: float, live_s: float) -> tuple[list[float], list[float], float]:
    """Of rows captured since the link is live again, until the last one from before the fault's end came; of rows
    captured in the fault and come by its end; and how long after its end that last one came."""
    late_s = max((each.at_s for each in onlooker.arrivals if min(each.captured_s) < ended_s), default=ended_s)
    seen: set[str] = set()
    ages: list[float] = []
    meanwhile: list[float] = []
    for each in onlooker.arrivals:
        if each.chunk not in seen and each.at_s <= late_s:
            seen.add(each.chunk)
            ages += [each.at_s - captured_s for captured_s in each.captured_s if captured_s > live_s]
            if each.at_s < ended_s:
                meanwhile += [each.at_s - captured_s for captured_s in each.captured_s if captured_s > begun_s]
    return sorted(ages), sorted(meanwhile), late_s - ended_s


def _quantile(ordered: Sequence[float], q: float) -> float | None:
    return round(ordered[int(q * len(ordered))], 2) if ordered else None


def _store(recording: Path) -> Iterator[Any]:
    return iter(RrdReader(str(recording)).stream().collect().stream())


def _rows_in_store(recording: Path, entity: str, component: str) -> list[tuple[int, Any]]:
    """(frame_idx, what is there) of each row. A store keeps what is heavy in a chunk, as pictures are, apart."""
    found: list[tuple[int, Any]] = []
    for chunk in _store(recording):
        has_it = not chunk.is_static and component in chunk.to_record_batch().schema.names
        if str(chunk.entity_path) == entity and has_it:
            found += zip(reading.column(chunk, "frame_idx"), reading.column(chunk, component), strict=True)
    return found


def _undecoded(samples: Sequence[bytes]) -> int:
    """How many pictures do not come out, or not as they went in."""
    decoder: Any = av.CodecContext.create("h264", "r")
    pictures = 0
    av.logging.set_level(av.logging.DEBUG)
    with av.logging.Capture() as told:
        for sample in samples:
            with contextlib.suppress(av.error.InvalidDataError):
                pictures += len([picture for picture in decoder.decode(av.Packet(sample)) if not picture.is_corrupt])
        pictures += len(decoder.decode(None))
    return len(samples) - pictures + len([line for _, _, line in told if "Frame num gap" in line])


PARTS: dict[str, Callable[[Fault, argparse.Namespace], Rows | Stop | Speed]] = {
    part.__name__: part for part in (rows, stop, speed)
}


def table(results: dict[str, dict[str, list[Any]]]) -> str:
    """The worst of all rounds; of speeds the median."""

    def worst(values: Sequence[float | None], form: str) -> str:
        return "-" if not values else "never" if None in values else format(max(map(float, values)), form)  # type: ignore[arg-type]

    columns = [
        "live s",
        "offer p99 ms",
        "memory MiB",
        "missing",
        "uncounted",
        "doubled",
        "undecoded",
        "age p50",
        "age p99",
    ]
    columns += ["meanwhile", "stop s", "code", "speed"]
    lines = [f"{'':20}" + "".join(f"{column:>{max(8, len(column) + 2)}}" for column in columns)]
    for name, parts in results.items():
        of = {part: parts.get(part, []) for part in PARTS}
        cells = [
            worst([each.live_s for each in of["rows"]], ".1f"),
            worst([each.offer_p99_ms for each in of["rows"]], ".2f"),
            worst([each.memory_over_idle_mib for each in of["rows"]], ".0f"),
            worst([each.missing for each in of["rows"]], ".0f"),
            worst([each.uncounted for each in of["rows"]], ".0f"),
            worst([each.doubled for each in of["rows"]], ".0f"),
            worst([each.undecoded for each in of["rows"]], ".0f"),
            *(
                worst([age for each in of["rows"] if (age := getattr(each, name)) is not None], ".2f")
                for name in ("age_p50_s", "age_p99_s", "meanwhile_p99_s")
            ),
            worst([each.stop_s for each in of["stop"]], ".1f"),
            worst([each.exit_code for each in of["stop"]], ".0f"),
            format(statistics.median(each.ratio for each in of["speed"]), ".2f") if of["speed"] else "-",
        ]
        widths = (max(8, len(column) + 2) for column in columns)
        lines.append(f"{name:20}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long a fault lasts that has no time of its own"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="so that more can follow than memory holds")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="more of the daemon's settings")
    parser.add_argument("--log", action="store_true", help="show what the daemon has logged")
    parser.add_argument("--keep", type=Path, help="where to leave what a run has left")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "EDGE_POSE_APART" not in os.environ:
        os.environ["EDGE_POSE_APART"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "tests.measure.hub_faults", *sys.argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    warnings.filterwarnings("ignore", "RRD file has no footer")
    results: dict[str, dict[str, list[Any]]] = {name: {} for name in options.only}
    for number in range(options.rounds):
        for name in options.only:
            for part in options.parts:
                outcome = PARTS[part](FAULTS[name], options)
                results[name].setdefault(part, []).append(outcome)
                print(f"round {number}: {name}: {outcome}", flush=True)
                if options.json:
                    plain = {
                        name: {part: [asdict(each) for each in found] for part, found in parts.items()}
                        for name, parts in results.items()
                    }
                    options.json.write_text(json.dumps(plain, indent=1))
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
