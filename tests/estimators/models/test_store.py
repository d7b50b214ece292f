from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import ModelError
from edge.estimators.models import store
from edge.estimators.models.catalog import BUNDLES, Make
from edge.estimators.models.store import ModelStore
from tests.estimators.models.mirror import MODEL, SHA256, TINY, Mirror, mirror

FILE = TINY.file_name


@pytest.fixture(scope="module")
def server() -> Iterator[Mirror]:
    with mirror() as running:
        yield running


@pytest.fixture(autouse=True)
def _directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def tiny_store(directory: Path, *preloaded: Path) -> ModelStore:
    return ModelStore(directory, preloaded=preloaded, bundles={"tiny": TINY})


def test_a_model_is_fetched_once_it_is_the_right_one_and_its_progress_is_told(server: Mirror, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    models = tiny_store(tmp_path / "new" / "models")
    model = models.ensure("tiny", source=f"{server.url}/right", progress=lambda *bytes_: told.append(bytes_))

    assert [path.name for path in (tmp_path / "new" / "models").iterdir()] == [FILE]
    assert (model.name, model.sha256, model.make, model.path.read_bytes()) == ("tiny", SHA256, Make.OFFICIAL, MODEL)
    assert told == sorted(told)
    assert told[-1] == (len(MODEL), len(MODEL))
    asked = len(server.requests)
    assert models.ensure("tiny", source=f"{server.url}/right") == models.find("tiny") == model
    assert len(server.requests) == asked, "what is here is not fetched again"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong", "what arrived has sha256 "),
        ("endless", "http://127.0.0.1:"),
        ("missing", "the mirror answers 404 Not Found"),
        ("babble", "the mirror can't be reached: "),
    ],
)
def test_what_is_not_the_model_leaves_nothing_behind_and_is_told_with_the_remedy(
    server: Mirror, tmp_path: Path, kind: str, reason: str
) -> None:
    with pytest.raises(ModelError) as caught:
        tiny_store(tmp_path).fetch("tiny", source=f"{server.url}/{kind}")

    message = str(caught.value)
    assert message.startswith(f"model tiny can't be fetched ({reason}")
    assert message.endswith(f"put {FILE} into {tmp_path} by hand, its sha256 is {SHA256}")
    assert "\n" not in message
    assert not list(tmp_path.rglob("*.task*"))


@pytest.mark.parametrize("kind", ["breaking", "rangeless"])
def test_a_fetch_that_broke_off_goes_on_where_it_stopped(server: Mirror, tmp_path: Path, kind: str) -> None:
    scratch = tmp_path / ".fetch"
    scratch.mkdir()
    (scratch / f"{FILE}.part").write_bytes(MODEL[:100_000])
    server.requests.clear()

    assert tiny_store(tmp_path).fetch("tiny", source=f"{server.url}/{kind}").sha256 == SHA256
    assert server.requests[0] == "bytes=100000-"
    assert len(server.requests) == {"breaking": 3, "rangeless": 1}[kind]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_is_left_of_something_else_is_thrown_away(server: Mirror, tmp_path: Path) -> None:
    scratch = tmp_path / ".fetch"
    scratch.mkdir()
    for length in (1000, len(MODEL), 2 * len(MODEL)):
        (scratch / f"{FILE}.part").write_bytes(b"?" * length)

        assert tiny_store(tmp_path).fetch("tiny", source=f"{server.url}/right").path.read_bytes() == MODEL
        (tmp_path / FILE).unlink()
        scratch.mkdir()


@pytest.mark.parametrize("kind", ["short", "torn"])
def test_a_server_that_never_gives_the_rest_is_given_up_and_what_came_is_kept(
    server: Mirror, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(ModelError, match="the mirror can't be reached"):
        tiny_store(tmp_path).fetch("tiny", source=f"{server.url}/{kind}")

    part = tmp_path / ".fetch" / f"{FILE}.part"
    assert MODEL.startswith(part.read_bytes())
    assert tiny_store(tmp_path).find("tiny") is None


def test_an_address_out_of_reach_is_told_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ModelError, match="by hand") as caught:
            tiny_store(tmp_path).fetch("tiny", source=f"http://127.0.0.1:{closed.getsockname()[1]}")

    assert "Connection refused" in str(caught.value)


def test_a_directory_is_a_source_too(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with pytest.raises(ModelError, match=rf"\({stick}/{FILE}: No such file or directory\)"):
        tiny_store(tmp_path / "models").fetch("tiny", source=str(stick))
    (stick / FILE).write_bytes(MODEL)

    assert tiny_store(tmp_path / "models").fetch("tiny", source=str(stick)).path == tmp_path / "models" / FILE


def test_with_the_source_off_what_is_here_is_found_by_fetch_too(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(MODEL)

    assert tiny_store(tmp_path).fetch("tiny", source="off").path == tmp_path / FILE


@pytest.mark.parametrize("directory", ["x" * 300, "file/models"])
def test_a_directory_that_there_can_not_be_is_told(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"see pose\.model_dir"):
        tiny_store(tmp_path / directory).ensure("tiny", source="http://127.0.0.1:9")


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/mödelle", f"http://{'a' * 64}.invalid/"])
def test_an_address_that_no_request_can_carry_is_told(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match="can't be asked for"):
        tiny_store(tmp_path).fetch("tiny", source=source)


def test_with_the_source_off_nothing_is_fetched_and_nothing_made(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"pose\.model_source is off"):
        tiny_store(tmp_path / "models").ensure("tiny", source="off")

    assert not (tmp_path / "models").exists()


def test_of_several_fetches_at_once_one_fetches(tmp_path: Path) -> None:
    found: list[Path] = []
    with mirror(pause_s=0.02) as slow:
        threads = [
            threading.Thread(
                target=lambda: found.append(tiny_store(tmp_path).ensure("tiny", source=f"{slow.url}/right").path)
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == [tmp_path / FILE] * 4
        assert slow.requests == [""]


def test_preloaded_models_are_found_and_ones_own_directory_comes_first(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / FILE).write_bytes(MODEL)
    models = tiny_store(tmp_path / "models", tmp_path / "nowhere", image)
    found = models.find("tiny")
    assert found is not None
    assert found.path == image / FILE
    assert not (tmp_path / "models").exists()

    models.fetch("tiny", source=str(image))
    found = models.find("tiny")
    assert found is not None
    assert found.path == tmp_path / "models" / FILE


def test_a_directory_that_cannot_be_made_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ModelError) as caught:
        ModelStore(tmp_path / "file" / "models", preloaded=()).ensure("lite")

    assert (
        str(caught.value) == f"model lite: {tmp_path}/file/models can't be written: Not a directory; see pose.model_dir"
    )


@pytest.mark.parametrize("name", ["lite", "full", "heavy"])
def test_a_file_of_the_models_name_that_is_not_the_model_is_never_used_and_left_to_look_at(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"pose_landmarker_{name}.task"
    path.write_bytes(MODEL)

    with pytest.raises(ModelError) as caught:
        ModelStore(tmp_path).ensure(name)

    assert str(caught.value) == (
        f"{path}: sha256 is {SHA256}, expected {BUNDLES[name].sha256}; 'edge-pose models fetch {name}' replaces it"
    )
    assert path.read_bytes() == MODEL


def test_fetching_replaces_a_damaged_file_and_only_by_the_right_one(server: Mirror, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(MODEL[:-1])
    with pytest.raises(ModelError):
        tiny_store(tmp_path).fetch("tiny", source=f"{server.url}/wrong")
    assert (tmp_path / FILE).read_bytes() == MODEL[:-1]

    tiny_store(tmp_path).fetch("tiny", source=f"{server.url}/right")
    assert (tmp_path / FILE).read_bytes() == MODEL


def test_a_model_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "dancers.task"
    own.write_bytes(MODEL)

    model = ModelStore(tmp_path / "unused").ensure(str(own))

    assert (model.name, model.path, model.sha256, model.make) == ("dancers", own, SHA256, Make.OWN)
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("name", ["medium", "missing.task", "", "x" * 300], ids=["name", "path", "empty", "long"])
def test_a_model_that_is_neither_a_name_nor_a_file_is_told_with_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError) as caught:
        ModelStore(tmp_path).ensure(name)

    assert str(caught.value) == (
        f"pose.model = {name!r}: expected lite, full, heavy or the path of a .task file; no such file"
    )


def test_models_are_kept_where_systemd_says_else_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert store.default_dir() == Path("/var/lib/one/models")

    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.default_dir() in {tmp_path / "edge-pose" / "models", store.STATE_DIR / "models"}
