from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import preflight
from edge.config import SOURCES
from edge.config_layers import load
from edge.errors import ConfigError
from tests.servers import certificates


def told(**keys: object) -> list[str]:
    """What preflight has to say of a configuration with these keys; __ stands for a dot."""
    values: dict[str, Any] = {"camera": {"front": {"source": "synthetic"}}}
    for key, value in keys.items():
        *tables, name = key.split("__")
        place = values
        for table in tables:
            place = place.setdefault(table, {})
        place[name] = value
    loaded = load(None, environment={}, sets=[], base=values, base_origin="here")
    return [str(problem) for problem in preflight.problems(loaded)]


def test_there_is_nothing_to_say_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "own.task").touch()
    (tmp_path / "password").write_text("secret\n")
    assert told() == []
    assert (
        told(
            camera__front__source=str(tmp_path / "clip.mp4"),
            camera__back__source="rtsp://nowhere/1",
            pose__model=str(tmp_path / "own.task"),
            mqtt__password_file=str(tmp_path / "password"),
            rerun__record_dir=str(tmp_path / "new" / "recordings"),
        )
        == []
    )
    assert list(tmp_path.glob("new")) == [], "nothing is made"


def test_the_files_that_are_missing_are_told_with_their_origin(tmp_path: Path) -> None:
    remedy = f"give {SOURCES}"
    assert told(camera__front__source=f"{tmp_path}/a", mqtt__ca_file=f"{tmp_path}/b") == [
        f"here: camera.front.source = '{tmp_path}/a': no such file; {remedy}",
        f"here: mqtt.ca_file = '{tmp_path}/b': no such file",
    ]


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\nsecret", b"\xff\n"])
def test_a_password_file_without_a_password_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert told(mqtt__password_file=str(file)) == [
        f"here: mqtt.password_file = '{file}': has no password in its first line"
    ]


@pytest.mark.parametrize("content", [b"secret", b"secret\n", b"secret\r\nmore\n"])
def test_the_password_is_the_first_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)
    assert preflight.password(tmp_path / "password") == "secret"


def test_a_ca_file_holds_certificates_be_they_an_authoritys_or_a_brokers_own(tmp_path: Path) -> None:
    certificates(tmp_path)
    assert told(mqtt__ca_file=str(tmp_path / "ca.crt")) == told(mqtt__ca_file=str(tmp_path / "server.crt")) == []
    (tmp_path / "empty").touch()
    for name in ("ca.key", "empty"):
        assert told(mqtt__ca_file=str(tmp_path / name)) == [
            f"here: mqtt.ca_file = '{tmp_path / name}': holds no certificate in PEM form"
        ]
    assert told(mqtt__ca_file=str(tmp_path)) == [f"here: mqtt.ca_file = '{tmp_path}': is a directory"]


def test_a_file_in_the_way_of_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below", "file/below/it"):
        assert preflight.unwritable(tmp_path / name) == f"can't be written: {tmp_path}/file is no directory"


PATHS = st.text(max_size=20) | st.sampled_from(
    ["", ".", "/", "a\0b", "x" * 300, "/proc/self/mem", "~", "\n", "/dev/null"]
)


@given(source=PATHS, model=PATHS, model_source=PATHS, file=PATHS, directory=PATHS)
@settings(deadline=None, max_examples=200)
def test_whatever_stands_where_a_path_belongs_ends_as_a_list_of_problems(
    source: str, model: str, model_source: str, file: str, directory: str
) -> None:
    try:
        lines = told(
            camera__front__source=source,
            pose__model=model,
            pose__model_dir=directory,
            pose__model_source=model_source,
            mqtt__password_file=file,
            mqtt__ca_file=file,
            rerun__record_dir=directory,
        )
    except ConfigError as error:
        lines = str(error).splitlines()
    assert all(line.startswith("here: ") for line in lines)


def test_a_client_certificate_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert told(mqtt__cert_file=f"{tmp_path}/cert", mqtt__key_file=f"{tmp_path}/key") == [
        f"here: mqtt.cert_file = '{tmp_path}/cert': no such file",
        f"here: mqtt.key_file = '{tmp_path}/key': no such file",
    ]


def test_a_key_that_does_not_belong_to_the_certificate_is_told(tmp_path: Path) -> None:
    certificates(tmp_path)
    certificate, stranger = tmp_path / "server.crt", tmp_path / "stranger.key"
    (line,) = told(mqtt__cert_file=str(certificate), mqtt__key_file=str(stranger))
    assert line == f"here: mqtt.key_file = '{stranger}': does not belong to the certificate {certificate}"
    assert told(mqtt__cert_file=str(certificate), mqtt__key_file=f"{tmp_path}/server.key") == []
