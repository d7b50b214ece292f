from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge.errors import ModelError
from edge.estimators import models
from edge.estimators.models import BUNDLES, Bundle

MODEL = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(MODEL).hexdigest()


@dataclass(frozen=True, slots=True)
class OwnBundle(Bundle):
    """A bundle at an address of ours."""

    address: str = ""

    @property
    def url(self) -> str:
        return self.address


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self) -> None:
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404, "Not Found")
            return
        if kind == "babble":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
            return
        body = {"wrong": b"x" * len(MODEL), "short": MODEL[:-1000], "endless": MODEL * 40}.get(kind, MODEL)
        self.send_response(200)
        if kind == "torn":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"1000\r\n" + MODEL[:100])
            return
        self.send_header("Content-Length", str(len(MODEL) if kind == "short" else len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            assert kind == "endless", "the only answer that nobody reads to its end"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetched(address: str, directory: Path) -> list[tuple[int, int]]:
    """Fetch into `directory`; the progress that was told."""
    told: list[tuple[int, int]] = []
    bundle = OwnBundle("tiny", SHA256, len(MODEL), address=address)
    models._fetch(bundle, directory / bundle.file_name, lambda arrived, expected: told.append((arrived, expected)))
    return told


def test_a_model_is_fetched_once_it_is_the_right_one_and_its_progress_is_told(server: str, tmp_path: Path) -> None:
    told = fetched(f"{server}/right", tmp_path / "new" / "models")

    assert [path.name for path in (tmp_path / "new" / "models").iterdir()] == ["pose_landmarker_tiny.task"]
    assert (tmp_path / "new" / "models" / "pose_landmarker_tiny.task").read_bytes() == MODEL
    assert told == sorted(told)
    assert told[-1] == (len(MODEL), len(MODEL))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong", "what arrived has sha256 "),
        ("short", ""),
        ("endless", "the official address sends more than the model"),
        ("missing", "the official address can't be reached: Not Found"),
        ("babble", ""),
        ("torn", ""),
    ],
)
def test_what_is_not_the_model_leaves_nothing_behind_and_is_told_with_the_remedy(
    server: str, tmp_path: Path, kind: str, reason: str
) -> None:
    with pytest.raises(ModelError) as caught:
        fetched(f"{server}/{kind}", tmp_path)

    message = str(caught.value)
    assert message.startswith(f"model tiny can't be fetched ({reason}")
    assert message.endswith(f"put pose_landmarker_tiny.task into {tmp_path} by hand, its sha256 is {SHA256}")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_an_address_out_of_reach_is_told_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.raises(ModelError, match="by hand") as caught:
            fetched(address, tmp_path)

    assert "Connection refused" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ModelError) as caught:
        models.ensure("lite", tmp_path / "file" / "models")

    assert str(caught.value) == f"model lite: {tmp_path}/file/models can't be written: Not a directory"


@pytest.mark.parametrize("name", ["lite", "full", "heavy"])
def test_a_file_of_the_models_name_that_is_not_the_model_is_never_used_and_left_to_look_at(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"pose_landmarker_{name}.task"
    path.write_bytes(MODEL)

    with pytest.raises(ModelError) as caught:
        models.ensure(name, tmp_path)

    assert str(caught.value) == (
        f"{path}: sha256 is {SHA256}, expected {BUNDLES[name].sha256}; delete the file and it is fetched anew"
    )
    assert path.read_bytes() == MODEL


def test_a_model_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "dancers.task"
    own.write_bytes(MODEL)

    model = models.ensure(str(own), tmp_path / "unused")

    assert (model.name, model.path, model.sha256) == ("dancers", own, SHA256)
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("name", ["medium", "missing.task", "", "x" * 300], ids=["name", "path", "empty", "long"])
def test_a_model_that_is_neither_a_name_nor_a_file_is_told_with_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError) as caught:
        models.ensure(name, tmp_path)

    assert str(caught.value) == (
        f"pose.model = {name!r}: expected lite, full, heavy or the path of a .task file; no such file"
    )


def test_models_are_kept_where_systemd_says_else_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert models.default_dir() == Path("/var/lib/one/models")

    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.default_dir() in {tmp_path / "edge-pose" / "models", models.STATE_DIR / "models"}
