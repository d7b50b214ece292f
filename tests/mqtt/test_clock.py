"""A board without a clock that runs on: what it makes of certificates, before and after it has the time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.secured_broker import secured_broker
from tests.servers import certificates, mosquitto, tls_settings

pytestmark = pytest.mark.integration

_PROGRAM = """
import select, sys, time
from pathlib import Path
from edge.mqtt.session import Session
from edge.mqtt.tls import Credentials
url, *files = sys.argv[1:]
session = Session([url], client_id="edge-pose.hall", version="5", credentials=Credentials("", "", *map(Path, files)))
told = ""
while True:
    session.service()
    now = "online" if session.online else session.trouble
    if now != told:
        told = now
        print(time.strftime("%Y", time.gmtime()), now, flush=True)
    select.select([], [], [], 0.05)  # libfaketime breaks time.sleep
"""

_1970 = "@1970-01-02 00:00:00"


@contextmanager
def device(clock: Path, url: str, *files: Path) -> Iterator[Path]:
    """One that tries to connect, by the time that stands in the file `clock`. What it says, a line each."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as on a board: that clock is never set
    }
    said = clock.with_suffix(".said")
    with said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, url, *map(str, files)],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
        )
    try:
        yield said
    finally:
        process.kill()
        process.wait()


def test_a_board_in_1970_and_its_broker_find_each_other(tmp_path: Path) -> None:
    with secured_broker() as (broker, authorities):
        authorities.device("hall")
        certificate, key = authorities.certificate("hall")
        clock = tmp_path / "clock"
        clock.write_text(_1970)
        with device(clock, broker.devices_url, authorities.servers_ca, certificate, key) as said:
            eventually(lambda: said.read_text() == "1970 online\n", 20)


def test_with_certificates_that_are_not_valid_yet_it_says_what_its_clock_shows_and_is_there_when_that_is_right(
    tmp_path: Path,
) -> None:
    certificates(tmp_path)
    with mosquitto(settings=tls_settings(tmp_path)) as broker:
        clock = tmp_path / "clock"
        clock.write_text(_1970)
        with device(clock, f"mqtts://localhost:{broker.port}", tmp_path / "ca.crt") as said:
            why = "certificate is not yet valid): this device's clock says 1970-01-02 00:00 UTC, is that right?"
            eventually(lambda: why in said.read_text(), 20)
            clock.write_text("+0")
            eventually(lambda: said.read_text().endswith(" online\n"), 40)
