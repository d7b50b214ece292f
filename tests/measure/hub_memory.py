"""Three daemons into one hub: what its memory does, and what a viewer that joins late gets.

usage: python -m tests.measure.hub_memory [--seconds 600] [--limit-mb 128] [--daemons 3]

The shipped hub (nginx and Rerun's server) with a limit small enough to be reached soon, and real daemons with
certificates of their own. Every ten seconds: resident memory of both, MiB. At the end a reader joins through the hub as
`edge-pose view --save` does, and what it has is compared with what each daemon's own recording holds.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rerun.chunk import RrdReader

from tests.secured_broker import HOST, Authorities
from tests.secured_hub import SecuredHub, secured_hub


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--limit-mb", type=int, default=128)
    parser.add_argument("--daemons", type=int, default=3)
    options = parser.parse_args()
    limit = {"--server-memory-limit": f"{options.limit_mb}MiB"}
    with (
        tempfile.TemporaryDirectory() as scratch,
        secured_hub(server_options=limit) as (hub, authorities),
        contextlib.ExitStack() as running,
    ):
        authorities.person("olga", "operator")
        names = [f"device-{number}" for number in range(options.daemons)]
        for name in names:
            authorities.device(name)
            running.enter_context(daemon(name, hub, authorities, Path(scratch)))
        begun_s, most = time.monotonic(), 0.0
        while (at_s := time.monotonic() - begun_s) < options.seconds:
            nginx, server = hub.servers
            memory = [_resident_mib(process.pid) for process in (server, nginx)]
            most = max(most, memory[0])
            print(f"{at_s:6.0f} s  Rerun {memory[0]:7.1f}  nginx {memory[1]:5.1f}", flush=True)
            time.sleep(10)
        print(f"Rerun's server: {most:.0f} MiB at most, limit {options.limit_mb} MB of messages")
        seen = Path(scratch) / "seen.rrd"
        _read_late(hub, authorities, seen)
        for name in names:
            _compare(name, seen, Path(scratch) / name)


@contextlib.contextmanager
def daemon(name: str, hub: SecuredHub, authorities: Authorities, scratch: Path) -> Iterator[None]:
    certificate, key = authorities.certificate(name)
    settings = {
        "device": name,
        "camera.front.source": "synthetic",
        "pose.model": "lite",
        "pose.workers": "1",
        "rerun.url": f"rerun+https://{HOST}:{hub.port}/proxy",
        "rerun.ca_file": authorities.servers_ca,
        "rerun.cert_file": certificate,
        "rerun.key_file": key,
        "rerun.record_dir": scratch / name,
    }
    command = [sys.executable, "-m", "edge", "run", *(f"--set={key}={value}" for key, value in settings.items())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _read_late(hub: SecuredHub, authorities: Authorities, into: Path) -> None:
    certificate, key = authorities.certificate("olga")
    command = [sys.executable, "-m", "edge", "view", f"{HOST}:{hub.port}", "--save", str(into)]
    command += ["--ca", str(authorities.servers_ca), "--cert", str(certificate), "--key", str(key)]
    viewer = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    time.sleep(20)  # it never ends by itself
    viewer.send_signal(signal.SIGINT)
    viewer.wait(20)


def _compare(name: str, seen: Path, recordings: Path) -> None:
    (own,) = {str(path): path for path in sorted(recordings.glob("*.0001.rrd"))}.values()
    wanted = {str(chunk.entity_path) for chunk in RrdReader(str(own)).stream() if chunk.is_static}
    reader = RrdReader(str(seen))
    (entry,) = [
        each for each in reader.recordings() if each.recording_id.startswith(f"{name}-") and each.kind == "recording"
    ]
    chunks = list(reader.stream(store=entry))
    static = {str(chunk.entity_path) for chunk in chunks if chunk.is_static}
    rows = sum(chunk.num_rows for chunk in chunks if not chunk.is_static)
    verdict = "all" if wanted <= static else f"without {', '.join(sorted(wanted - static))}"
    print(f"{name}: the late reader has {verdict} of {len(wanted)} static entities, and {rows} rows")


def _resident_mib(pid: int) -> float:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
