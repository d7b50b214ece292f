"""What the documentation tells people to type works, and what it says that programs say, they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from edge.cli.local_viewer import rerun_program
from edge.config import PeopleEvents
from edge.config_layers import load
from edge.diagnosis import diagnose
from edge.mqtt.wire import v1
from tests.cli.command import edge_pose
from tests.servers import mosquitto

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
README = (ROOT / "README.md").read_text()
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What the system or a library says, so that no file of ours holds it.
FOREIGN = {
    "Connection refused",
    "No route to host",
    "Connection timed out",
    "401 Unauthorized",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Not authorized",
    "Permission denied",
    "Connection reset by peer",
    "Input/output error",
    "(at line 3, column 7)",
    "libEGL.so.1",
    "unknown ca",
    "certificate expired",
    "certificate revoked",
}


def blocks(page: str, language: str) -> list[str]:
    return [text for found, text in FENCED.findall(page) if found == language]


def commands(program: str) -> list[str]:
    """Every command line of `program` on any page, from blocks and from `inline code` alike."""
    found = []
    for page in (path.read_text() for path in PAGES):
        found += [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith(f"{program} ")]
        found += re.findall(rf"`(?:\.venv/bin/)?({program} [^`\n]+)`", FENCED.sub("", page))
    return sorted({*found})


def test_there_is_something_to_test() -> None:
    assert len(commands("edge-pose")) >= 15
    assert len(commands("mosquitto_sub")) >= 3
    assert len(commands("rerun")) >= 2
    assert len(PAGES) >= 5


@pytest.mark.parametrize("command", commands("edge-pose"))
def test_every_command_and_every_option_of_it_exists(command: str) -> None:
    _, *words = shlex.split(command)
    names = words[:2] if words[0] in {"models", "recordings", "schema"} else words[:1]
    shown = edge_pose(*names, "--help")
    assert shown.returncode == 0, shown.stderr
    for option in words:
        if option.startswith("--"):
            assert re.search(rf"^\s+(-\w, |--\w+ / )?{option}\b", shown.stdout, re.MULTILINE), option


@pytest.mark.parametrize("command", commands("rerun"))
def test_every_option_of_rerun_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    shown = subprocess.run(
        [rerun_program(), *(words[:2] if words[0] == "rrd" else []), "--help"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for option in words:
        if option.startswith("-"):
            assert re.search(rf"^\s+(-\w, )?{option}\b", shown, re.MULTILINE), option


def test_the_run_command_runs(tmp_path: Path, model: Path) -> None:
    (line,) = [line for line in commands("edge-pose run") if "--set camera" in line]
    _, *arguments = shlex.split(line.replace("record_dir=recordings", f"record_dir={tmp_path}"))
    run = edge_pose(*arguments, "--seconds", "4", "--set", f"pose.model={model}")
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob("*.rrd"))


def test_the_example_configuration_is_valid_and_its_commands_take_it(tmp_path: Path) -> None:
    (text,) = blocks(README, "toml")
    file = tmp_path / "config.toml"
    file.write_text(text.replace('"recordings"', f'"{tmp_path}/recordings"'))
    (line,) = commands("edge-pose check")
    check = edge_pose(*shlex.split(line.replace("config.toml", str(file)))[1:])
    assert check.returncode == 0, check.stderr
    assert "password" not in check.stdout.replace("password_file", "")
    (line,) = [line for line in commands("edge-pose doctor") if "config.toml" in line]
    local = file.read_text().replace("v4l2:/dev/video0", "synthetic").replace("hub.local", "127.0.0.1")
    file.write_text(local)
    doctor = edge_pose(*shlex.split(line.replace("config.toml", str(file)))[1:])
    assert "✓ camera.front synthetic" in doctor.stdout


@pytest.mark.usefixtures("model")
def test_the_bench_commands_measure(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    lines = {line for block in blocks(page, "sh") for line in block.splitlines()}
    ours = f"{shlex.quote(sys.executable)} -m edge bench"
    # Each with its own options, but briefly. The first two are run as they are in tests/cli/test_bench.py.
    others = sorted(lines - {"edge-pose bench", "edge-pose bench --quick"})
    assert len(others) == len(lines) - 2 >= 5
    for line in others:
        briefly = line.replace("edge-pose bench", f"{ours} --only bare") if "--only" not in line else line
        command, redirected, file = briefly.replace("edge-pose bench", ours).partition(" > ")
        command += " --rounds 1 --seconds 0.5"
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            ["sh", "-c", f"{command}{redirected}{file}"],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
        )
        assert ran.returncode == 0, ran.stderr
        shown = (tmp_path / file).read_text() if file else ran.stdout
        assert "bare" in shown


def test_what_bench_prints_is_explained() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    source = (ROOT / "edge" / "cli" / "bench.py").read_text()
    returned = source[source.index("def _as_json") :]
    keys = re.findall(r'^        "(\w+)":', returned[: returned.index("\ndef ", 10)], re.MULTILINE)
    assert {"ratios", "machine", "doubts"} <= set(keys)
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_the_subscribe_command_subscribes() -> None:
    (line,) = [line for line in commands("mosquitto_sub") if line.endswith("-h localhost -t 'pose/v1/#' -v")]
    with mosquitto() as broker:
        port = ["-p", str(broker.port)]
        subprocess.run(["mosquitto_pub", *port, "-r", "-t", "pose/v1/hall/state", "-m", "online"], check=True)
        heard = subprocess.run(
            [*shlex.split(line), *port, "-C", "1", "-W", "5"], check=True, capture_output=True, text=True
        )
    assert heard.stdout == "pose/v1/hall/state online\n"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    everything = "\n".join(path.read_text() for path in PAGES)
    code = [*blocks(everything, "sh"), *re.findall(r"`([^`\n]+)`", FENCED.sub("", everything))]
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(code)))
    assert {"demo", "test", "lint", "docs"} <= named <= targets


def test_every_file_that_is_linked_exists() -> None:
    for page in (*PAGES, *ROOT.glob("docs/decisions/*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_list_of_keys_is_the_one_that_the_code_has() -> None:
    page = edge_pose("schema", "config", "--format", "markdown").stdout
    assert (ROOT / "docs" / "configuration.md").read_text() == page, "make docs"


@pytest.mark.usefixtures("model")
def test_each_finding_of_doctor_has_its_section() -> None:
    headings = set(re.findall(r"^## (.+)$", TROUBLESHOOTING, re.MULTILINE))
    settings = ["--set", "camera.front.source=synthetic"]
    listed = json.loads(edge_pose("doctor", "--json", *settings).stdout)
    names = {finding["name"].partition(".")[0] for finding in listed}
    assert names == headings - {"Everything else"}
    assert {finding.name for finding in diagnose(None)} <= names


def test_what_the_tables_say_that_programs_say_is_in_the_code() -> None:
    said = re.findall(r"^\| (`.+?`) \|", TROUBLESHOOTING, re.MULTILINE)
    phrases = [phrase for cell in said for phrase in re.findall(r"`([^`]+)`", cell)]
    assert len(phrases) > 20
    # The f-strings' own text is what is compared; what is put in stands as … on the page.
    source = "\n".join(path.read_text() for path in (ROOT / "edge").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    for phrase in phrases:
        ours = phrase
        for known in FOREIGN:
            ours = ours.replace(known, "…")
        for part in re.split(r"…|;|\d+", ours):
            text = part.strip(" ,;()")
            assert len(text) < 4 or text in source, phrase


@pytest.mark.usefixtures("model")
def test_the_pictures_can_be_made_anew(tmp_path: Path) -> None:
    command = [ROOT / ".venv" / "bin" / "python", ROOT / "docs" / "pictures" / "make.py"]
    made = subprocess.run(
        [*command, "--out", tmp_path, "terminal", "angle"], check=False, capture_output=True, text=True, timeout=100
    )
    assert made.returncode == 0, made.stdout + made.stderr
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept.keys() == {"terminal.svg", "angle.png"}
    assert b"demo: OK" in kept["terminal.svg"].replace(b"&#160;", b" ").replace(b"</text>", b"")
    for page in kept["terminal.svg"], (ROOT / "docs" / "pictures" / "terminal.svg").read_bytes():
        assert not re.search(rb"/(root|home|tmp|work)/", page), "a path of the machine that made it"
        assert re.findall(rb"https?://[^\"']+", page) == [b"http://www.w3.org/2000/svg"]


def test_each_field_of_summaries_and_peoples_events_is_explained() -> None:
    page = (ROOT / "docs" / "people.md").read_text()
    events = [kind for kind in get_args(v1.Event) if "seq" in kind.__struct_fields__]
    structs = [v1.Summary, v1.PersonSummary, v1.FallEvidence, *events]
    fields = {field for struct in structs for field in struct.__struct_fields__} - {"v"}
    fields |= {kind.__struct_config__.tag for kind in events} | set(v1.Posture)

    assert [field for field in sorted(fields) if f"`{field}`" not in page] == []
    assert [name for name in get_args(PeopleEvents) if f"`{name}`" not in page] == []


def test_the_configuration_of_people_is_one() -> None:
    (text,) = blocks((ROOT / "docs" / "people.md").read_text(), "toml")

    config = load(None, environment={}, sets=[], base=tomllib.loads(text)).config

    assert config.camera["front"].zone.keys() == {"door"}
    assert config.camera["front"].line.keys() == {"entrance"}
