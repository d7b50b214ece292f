"""Rerun's server on this machine, with its web viewer or without, for as long as a demonstration lasts."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from edge.cli.local_server import free_port, local_server
from edge.rerun_log.program import rerun_program, without_analytics


@dataclass(frozen=True, slots=True)
class LocalViewer:
    """push: where the daemon streams to. page: what a browser opens."""

    push: str
    page: str


@contextlib.contextmanager
def local_viewer() -> Iterator[LocalViewer]:
    """A gRPC server and the viewer's web page, both on the loopback interface only, with Rerun's telemetry off."""
    grpc_port, web_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="edge-pose-viewer-") as scratch:
        command = [str(rerun_program()), "--serve-web", "--bind", "127.0.0.1", "--port", str(grpc_port)]
        command += ["--web-viewer-port", str(web_port), "--server-memory-limit", "512MB"]
        environment = {**os.environ, **without_analytics(Path(scratch)), "BROWSER": "true"}
        with local_server(command, grpc_port, web_port, environment=environment):
            push = f"rerun+http://127.0.0.1:{grpc_port}/proxy"
            yield LocalViewer(push=push, page=f"http://127.0.0.1:{web_port}/?url={quote(push, safe='')}")


@contextlib.contextmanager
def local_hub() -> Iterator[str]:
    """A gRPC server without a viewer, as on a hub, on the loopback interface only; where a daemon streams to."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="edge-pose-hub-") as scratch:
        command = [str(rerun_program()), "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--server-memory-limit", "256MB", "--memory-limit", "512MB"]
        with local_server(command, port, environment={**os.environ, **without_analytics(Path(scratch))}):
            yield f"rerun+http://127.0.0.1:{port}/proxy"
