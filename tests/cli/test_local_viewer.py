"""The viewer that `demo --viewer` brings along."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edge.cli.local_server import local_server, why_taken
from edge.cli.local_viewer import local_hub, local_viewer, rerun_program, without_analytics
from tests.servers import free_port

pytestmark = pytest.mark.integration


def test_its_page_is_there_until_the_end_of_the_block() -> None:
    with local_viewer() as viewer, urllib.request.urlopen(viewer.page, timeout=10) as page:
        assert b"rerun" in page.read().lower()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(viewer.page, timeout=10)


def test_a_hub_takes_streams_until_the_end_of_the_block() -> None:
    with local_hub() as url:
        address = urlsplit(url)
        assert (address.hostname, address.path) == ("127.0.0.1", "/proxy")
        assert address.port is not None
        assert why_taken(address.port)
    assert why_taken(address.port) is None


def test_rerun_accepts_that_it_is_to_report_nothing(tmp_path: Path) -> None:
    settings = without_analytics(tmp_path)
    port = free_port()
    command = [str(rerun_program()), "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
    with local_server(command, port, environment={**os.environ, **settings, "HOME": str(tmp_path / "home")}):
        pass
    kept = json.loads((tmp_path / "rerun" / "analytics.json").read_text())
    assert kept["analytics_enabled"] is False
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["analytics.json"]
