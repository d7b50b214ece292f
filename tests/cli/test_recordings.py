"""`edge-pose recordings`: what is listed, fetched and deleted, here and over ssh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.cli.recordings import list_recordings, prune, pull
from tests.cli.command import COMMAND, edge_pose
from tests.rerun_log.reading import rows
from tests.rerun_log.scenes import Recorder, scene, video_parcel

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
VIDEO = "/camera/front/video"
OLD, NEW = "bench-20260101T000000Z-0000abcd", "bench-20260102T120000Z-0000abce"


def record(directory: Path, session: str) -> Recorder:
    recorder = Recorder(directory, scene(session=session), keep_mb=3)
    for number in range(16):
        recorder.put(video_parcel(number))
    return recorder


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With an old recording that has ended, in several files, and a file that is none."""
    place = tmp_path / "recordings"
    record(place, "20260101T000000Z-0000abcd").close()
    (place / "mine.rrd").write_bytes(b"something else")
    a_day_ago_s = time.time() - 86_400
    for file in place.glob("bench-*"):
        os.utime(file, (a_day_ago_s, a_day_ago_s))
    return place


@pytest.fixture
def writer(directory: Path) -> Recorder:
    """What writes another one now."""
    return record(directory, "20260102T120000Z-0000abce")


def recordings(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return edge_pose("recordings", *map(str, arguments), **environment)


def mb(*files: Path) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def left(directory: Path) -> set[str]:
    return {file.name.partition(".")[0] for file in directory.glob("*.rrd")}


@pytest.mark.usefixtures("writer")
def test_a_list_tells_what_there_is_and_what_is_being_written(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_recordings(directory)
    heading, old, new = capsys.readouterr().out.splitlines()
    assert heading.split() == ["recording", "device", "from", "(UTC)", "to", "length", "MB", "files"]
    assert old.startswith(f"{OLD}  bench   2026-01-01 00:00:00  ")
    assert new.startswith(NEW)
    assert new.endswith("being written")
    assert not old.endswith("being written")


@pytest.mark.usefixtures("writer")
def test_programs_get_json_from_where_the_configuration_records(directory: Path) -> None:
    told = recordings("list", "--json", "--set", f"rerun.record_dir={directory}")
    old, new = json.loads(told.stdout)
    assert old.keys() == {"name", "device", "from", "to", "seconds", "bytes", "files", "being_written", "missing"}
    assert (old["name"], old["device"], old["from"]) == (OLD, "bench", "2026-01-01T00:00:00Z")
    assert (old["being_written"], new["being_written"]) == (False, True)
    files = list(directory.glob(f"{OLD}.*"))
    assert (old["files"], old["bytes"]) == (len(files), sum(file.stat().st_size for file in files))


def test_none_are_no_mistake_and_nowhere_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_recordings(tmp_path)
    assert capsys.readouterr().out == "no recordings\n"
    nowhere = recordings("list", "--dir", tmp_path / "not")
    assert (nowhere.returncode, nowhere.stderr) == (66, f"edge-pose: {tmp_path}/not: No such file or directory\n")
    unset = recordings("list", EDGE_POSE_CONFIG="/dev/null")
    assert unset.returncode == 78
    assert "rerun.record_dir" in unset.stderr
    assert "give --dir" in unset.stderr


@pytest.mark.usefixtures("writer")
def test_a_recording_is_put_together_into_a_file_or_a_pipe(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull(OLD, str(tmp_path / "whole.rrd"), directory=directory)
    assert capsys.readouterr().out == f"{tmp_path}/whole.rrd: {mb(tmp_path / 'whole.rrd')}\n"
    assert sorted(rows(tmp_path / "whole.rrd")[VIDEO]) == list(range(128))
    with (tmp_path / "piped.rrd").open("wb") as out:
        command = [*COMMAND, "recordings", "pull", "bench-20260102", "-", "--dir", directory]
        subprocess.run(command, check=True, stdout=out)
    assert sorted(rows(tmp_path / "piped.rrd")[VIDEO]) == list(range(128))
    again = recordings("pull", OLD, tmp_path / "whole.rrd", "--dir", directory)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert not list(tmp_path.glob("*.part"))


def test_what_can_not_be_pulled_is_told_in_a_line(directory: Path, tmp_path: Path) -> None:
    unknown = recordings("pull", "attic", "--dir", directory)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (66, 1)
    assert "attic: no such recording" in unknown.stderr
    nowhere = recordings("pull", OLD, tmp_path / "not" / "there.rrd", "--dir", directory)
    assert nowhere.returncode == 1
    assert (
        nowhere.stderr
        == f"edge-pose: {tmp_path}/not/there.rrd: can't be written: there is no directory {tmp_path}/not\n"
    )


@pytest.mark.usefixtures("writer")
def test_the_oldest_go_by_age_or_size_and_nothing_that_is_being_written_or_no_recording(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = list(directory.glob(f"{OLD}.*"))
    prune(older_than="12h", dry_run=True, directory=directory)
    planned = capsys.readouterr().out
    assert planned == f"would delete {OLD}: {len(files)} files, {mb(*files)}\n"
    assert left(directory) == {OLD, NEW, "mine"}
    prune(older_than="2d", directory=directory)
    assert capsys.readouterr().out == "nothing to delete\n"
    prune(older_than="12h", directory=directory)
    assert capsys.readouterr().out == planned.replace("would delete", "deleted")
    assert left(directory) == {NEW, "mine"}
    prune(keep_mb=0, directory=directory)
    assert capsys.readouterr().out.startswith(f"deleted {NEW}: {len(files) - 1} of {len(files)} files")
    assert left(directory) == {NEW, "mine"}


def test_what_several_recordings_take_is_told_in_all(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(directory, "20260102T120000Z-0000abce").close()
    files = len(list(directory.glob("bench-*")))
    size = sum(file.stat().st_size for file in directory.glob("bench-*")) / 1e6
    prune(keep_mb=0, dry_run=True, directory=directory)
    *_, total = capsys.readouterr().out.splitlines()
    assert total == f"would delete in all: {files} files, {size:.1f} MB"
    first = min(directory.glob(f"{OLD}.*"))
    prune(keep_mb=size - first.stat().st_size / 2e6, dry_run=True, directory=directory)
    assert capsys.readouterr().out.startswith(f"would delete {OLD}: 1 of {files // 2} files, ")


@pytest.mark.usefixtures("writer")
def test_recordings_are_deleted_by_name_all_or_none(directory: Path) -> None:
    refused = recordings("prune", OLD, NEW, "--dir", directory)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"edge-pose: {NEW} is being written: nothing is deleted\n",
    )
    assert recordings("prune", OLD, "mine", "--dir", directory).returncode == 66
    assert left(directory) == {OLD, NEW, "mine"}
    prune([OLD], directory=directory)
    assert left(directory) == {NEW, "mine"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "prune: what? name recordings, or give --older-than or --keep-mb"),
        (["--keep-mb", "-1"], "edge-pose: --keep-mb -1: expected a number of MB from 0 on\n"),
        (["--keep-mb", "nan"], "edge-pose: --keep-mb nan: expected a number of MB from 0 on\n"),
        (["--older-than", "soon"], "--older-than 'soon': expected a number and s, min, h, d or w, such as 7d"),
    ],
)
def test_nothing_is_deleted_by_guessing(arguments: list[str], told: str) -> None:
    ended = recordings("prune", *arguments)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_file_of_a_recording_names_it_to_pull_but_not_to_prune(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = min(directory.glob(f"{OLD}.*"))
    pull(file.name, str(tmp_path / "whole.rrd"), directory=directory)
    assert capsys.readouterr().out == f"{tmp_path}/whole.rrd: {mb(tmp_path / 'whole.rrd')}\n"
    assert recordings("prune", file.name, "--dir", directory).returncode == 66
    assert OLD in left(directory)


class TestOverSsh:
    """A stand-in does what sshd does: it gives all words behind the host, as one text, to a shell."""

    @pytest.fixture
    def there(self, tmp_path: Path, directory: Path) -> dict[str, str]:
        """The environment with that ssh, and an edge-pose on the other side."""
        programs = tmp_path / "bin"
        programs.mkdir()
        ssh = (
            '#!/bin/sh\n[ "$1 $2 $3 $4 $5" = "-o BatchMode=yes -o ConnectTimeout=10 --" ] || exit 9\nhost=$6\nshift 6\n'
            'away="ssh: connect to host $host port 22: No route to host"\n'
            '[ "$host" = me@hall-pi ] || { echo "$away" >&2; exit 255; }\n'
            'exec sh -c "$*"\n'
        )
        edge = f'#!/bin/sh\ncd /\nEDGE_POSE__RERUN__RECORD_DIR={directory} exec {sys.executable} -m edge "$@"\n'
        for name, text in (("ssh", ssh), ("edge-pose", edge)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        return {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def test_the_same_commands_work_on_a_device(
        self, directory: Path, there: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        on = ("--on", "me@hall-pi")
        listed = recordings("list", "--json", *on, **there)
        assert [each["name"] for each in json.loads(listed.stdout)] == [OLD], listed.stderr
        pulled = recordings("pull", "bench-2026", *on, **there)
        assert pulled.stdout == f"{OLD}.rrd: {mb(tmp_path / (OLD + '.rrd'))}\n", pulled.stderr
        assert sorted(rows(tmp_path / f"{OLD}.rrd")[VIDEO]) == list(range(128))
        pruned = recordings("prune", "--older-than", "12h", *on, **there)
        assert pruned.stdout.startswith(f"deleted {OLD}"), pruned.stderr
        assert left(directory) == {"mine"}

    def test_what_fails_there_or_on_the_way_is_told_in_a_line(self, there: dict[str, str], tmp_path: Path) -> None:
        unknown = recordings("pull", "attic", tmp_path / "attic.rrd", "--on", "me@hall-pi", **there)
        assert (unknown.returncode, unknown.stderr.count("\n")) == (66, 1)
        assert unknown.stderr.startswith("edge-pose: me@hall-pi: attic: no such recording")
        away = recordings("list", "--on", "attic-pi", **there)
        assert (away.returncode, away.stderr) == (
            69,
            "edge-pose: attic-pi: ssh: connect to host attic-pi port 22: No route to host\n",
        )
        option = recordings("list", "--on=-oProxyCommand=sh", **there)
        assert option.returncode == 2
        assert not list(tmp_path.glob("attic*"))

    def test_words_stay_words_there(self, there: dict[str, str]) -> None:
        ended = recordings("list", "--dir", "/tmp/$(exit 7); a b", "--on", "me@hall-pi", **there)
        assert (ended.returncode, ended.stderr) == (
            66,
            "edge-pose: me@hall-pi: /tmp/$(exit 7); a b: No such file or directory\n",
        )
