"""Rerun's web viewer on this machine for as long as a demonstration lasts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from edge.cli.local_broker import free_port, wait_until_listening


@dataclass(frozen=True, slots=True)
class LocalViewer:
    """push: where the daemon streams to. page: what a browser opens."""

    push: str
    page: str


@contextlib.contextmanager
def local_viewer() -> Iterator[LocalViewer]:
    """A gRPC server and the viewer's web page, both on the loopback interface only, with Rerun's telemetry off."""
    import rerun_cli

    # `rerun` on the PATH is a Python wrapper; a signal to it leaves the real server alive.
    program = Path(str(rerun_cli.__file__)).parent / "rerun"
    grpc_port, web_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="edge-pose-viewer-") as scratch:
        settings = Path(scratch) / "rerun" / "analytics.json"
        settings.parent.mkdir()
        settings.write_text(json.dumps({"analytics_enabled": False, "analytics_id": "", "metadata": {}}))
        command = [str(program), "--serve-web", "--bind", "127.0.0.1", "--port", str(grpc_port)]
        command += ["--web-viewer-port", str(web_port), "--server-memory-limit", "512MB"]
        quiet = subprocess.DEVNULL
        # In a group of its own, for the same reason as the broker.
        environment = {**os.environ, "XDG_CONFIG_HOME": scratch, "BROWSER": "true"}
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env=environment, process_group=0)
        try:
            wait_until_listening(grpc_port)
            wait_until_listening(web_port)
            push = f"rerun+http://127.0.0.1:{grpc_port}/proxy"
            yield LocalViewer(push=push, page=f"http://127.0.0.1:{web_port}/?url={quote(push, safe='')}")
        finally:
            process.kill()
            process.wait()
