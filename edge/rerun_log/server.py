"""A Rerun server on this device, for viewers that come to it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

from edge.children import ending_with_us
from edge.logs import FaultLog, printable
from edge.pacing import Backoff, Deadline
from edge.rerun_log.forwarder import Forwarder
from edge.rerun_log.scene import Scene
from edge.rerun_log.serving import READY

log = logging.getLogger(__name__)

_END_S = 0.5


class ViewerServer:
    """Keeps Rerun's server running at an address, in a process of its own: what it does with its memory, or a viewer to
    it, is nothing to this one. It is started anew when it ends.

    Nobody is asked who they are there, and whoever reads may write as well. memory_mb: what it keeps for viewers that
    come later; besides that it takes some 50 MB.
    """

    def __init__(self, host: str, port: int, *, memory_mb: int, scene: Scene) -> None:
        self._host = host
        self._port = port
        self._command = [sys.executable, "-m", "edge.rerun_log.serving", host, str(port), str(memory_mb)]
        self._command += [scene.application_id, scene.recording_id]
        self._is_up = False
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._backoff = Backoff(first_s=0.5, most_s=10.0)
        self._faults = FaultLog(log)
        self._thread = threading.Thread(target=self._run, name="rerun-server", daemon=True)

    @property
    def is_up(self) -> bool:
        """Whether it has the port: before that, and after its end, that may be anybody's."""
        return self._is_up

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """End it at once, by force: it has nothing that anybody would miss. Whether it has ended."""
        self._ended.set()
        if self._process is not None and self._thread.is_alive():
            self._process.kill()
        self._thread.join(_END_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ended.is_set():
            why = self._serve()
            if not self._ended.is_set():
                wait_s = self._backoff.next_s()
                told = "the server for viewers at %s:%d ended: %s; next try in %.1f s"
                self._faults.failed(told, self._host, self._port, why, wait_s)
                self._ended.wait(wait_s)

    def _serve(self) -> str:
        """Why it has ended."""
        try:
            # From this thread, which lives as long as the process: the kernel ends it with whoever has started it.
            self._process = process = subprocess.Popen(
                ending_with_us(self._command),
                env={**os.environ, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,  # Ctrl-C is this process's to answer
            )
        except OSError as error:
            return error.strerror or str(error)
        if self._ended.is_set():  # since the last look
            process.kill()
        with process:
            assert process.stdout is not None, "it was asked for"
            last = ""
            for line in process.stdout:
                last = line.strip()
                if last == READY:
                    self._is_up = True
                    self._faults.worked("serving viewers at %s:%d again", self._host, self._port)
                    log.info("serving viewers at %s:%d, whoever they are", self._host, self._port)
            self._is_up = False
            code = process.wait()
        return f"exit code {code}" + (f", {printable(last)}" if last not in ("", READY) else "")


class Served:
    """A server and what fills it, as one of a group's stages: the server is there before and after the other."""

    def __init__(self, server: ViewerServer, forwarder: Forwarder) -> None:
        self.name = forwarder.name
        self._server = server
        self._forwarder = forwarder

    def start(self) -> None:
        self._server.start()
        self._forwarder.start()

    def close(self, deadline: Deadline) -> None:
        self._forwarder.close(deadline)

    def join(self) -> bool:
        forwarded = self._forwarder.join()
        return self._server.stop() and forwarded
