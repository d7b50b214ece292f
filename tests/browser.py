"""A page in Debian's Chromium, without a screen and drawn in software, as much of it as looking at a page takes.

It is driven by the DevTools protocol over two pipes (https://chromedevtools.github.io/devtools-protocol/): messages of
JSON, each ended by a zero byte, which the browser reads from descriptor 3 and writes to descriptor 4.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from edge.children import end
from edge.pacing import Deadline

CHROMIUM = shutil.which("chromium")
_ANSWER_TIMEOUT_S = 60.0  # a page that computes keeps everybody waiting


class Page:
    """to_browser, from_browser: this end of the pipes."""

    def __init__(self, to_browser: int, from_browser: int, width_px: int, height_px: int) -> None:
        self._to_browser, self._from_browser = to_browser, from_browser
        self._received = b""
        self._calls = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        self._call("Emulation.setEmulatedMedia", features=dark)
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    def open(self, address: str) -> None:
        """Go there. What its scripts show comes later."""
        self._call("Page.navigate", url=address)
        deadline = Deadline(_ANSWER_TIMEOUT_S)
        while self._call("Runtime.evaluate", expression="document.readyState")["result"]["value"] != "complete":
            assert deadline.left_s(), f"{address} is not loaded within {_ANSWER_TIMEOUT_S:g} s"
            time.sleep(0.1)

    def screenshot(self) -> bytes:
        """PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def click(self, x_px: int, y_px: int) -> None:
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x_px, y=y_px, button="left", clickCount=1)

    def press_space(self) -> None:
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ", windowsVirtualKeyCode=32)

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._calls += 1
        message: dict[str, object] = {"id": self._calls, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        deadline = Deadline(_ANSWER_TIMEOUT_S)
        while True:
            *whole, self._received = self._received.split(b"\0")
            for answer in map(json.loads, whole):
                if answer.get("id") == self._calls:
                    assert "error" not in answer, f"{method}: {answer['error']}"
                    result: dict[str, Any] = answer["result"]
                    return result
            ready, _, _ = select.select([self._from_browser], [], [], deadline.left_s())
            assert ready, f"{method}: no answer within {_ANSWER_TIMEOUT_S:g} s"
            more = os.read(self._from_browser, 1 << 20)
            assert more, f"{method}: the browser has ended"
            self._received += more


@contextlib.contextmanager
def browser_page(width_px: int, height_px: int) -> Iterator[Page]:
    """An empty page of that size, dark where pages ask. It knows no certificate and keeps nothing."""
    assert CHROMIUM is not None, "apt install --no-install-recommends chromium"
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="edge-pose-browser-", ignore_cleanup_errors=True)
        )
        its_in, to_browser = os.pipe()
        from_browser, its_out = os.pipe()
        stack.callback(os.close, to_browser)
        stack.callback(os.close, from_browser)
        command = [CHROMIUM, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        command += ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        command += ["--no-first-run", "--disable-background-networking"]
        # A shell puts its ends where it looks for them; up there they are in nobody's way.
        ends = [fcntl.fcntl(pipe, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in (its_in, its_out)]
        shell = f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}'
        quiet = subprocess.DEVNULL
        browser = subprocess.Popen(["bash", "-c", shell, "bash", *command], stdout=quiet, stderr=quiet, pass_fds=ends)
        stack.callback(end, browser, 5.0)
        for its_end in (its_in, its_out, *ends):
            os.close(its_end)
        yield Page(to_browser, from_browser, width_px, height_px)
