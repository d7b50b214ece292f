"""What the documentation tells people to type works."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import edge_pose
from tests.servers import mosquitto

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Every command line of `program`, from blocks and from `inline code` alike."""
    inline = re.findall(rf"`({program} [^`\n]+)`", re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith(f"{program} ")]
    return [*lines, *inline]


def test_there_is_something_to_test() -> None:
    assert len(commands("edge-pose")) >= 5
    assert commands("mosquitto_sub")
    assert blocks("toml")


@pytest.mark.parametrize("command", commands("edge-pose"))
def test_every_option_of_a_command_exists(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    help_text = edge_pose(name, "--help").stdout
    for option in arguments:
        if option.startswith("--"):
            assert re.search(rf"^\s+(-\w, )?{option}\b", help_text, re.MULTILINE), option


def test_the_run_command_runs(tmp_path: Path, model: Path) -> None:
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("edge-pose run")]
    _, *arguments = shlex.split(line.replace("record_dir=recordings", f"record_dir={tmp_path}"))
    run = edge_pose(*arguments, "--seconds", "4", "--set", f"pose.model={model}")
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob("*.rrd"))


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    file = tmp_path / "config.toml"
    file.write_text(text)
    check = edge_pose("check", "--config", str(file))
    assert check.returncode == 0, check.stderr
    assert "password" not in check.stdout.replace("password_file", "")


def test_the_subscribe_command_subscribes() -> None:
    (line,) = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("mosquitto_sub")]
    with mosquitto() as broker:
        port = ["-p", str(broker.port)]
        subprocess.run(["mosquitto_pub", *port, "-r", "-t", "pose/v1/hall/state", "-m", "online"], check=True)
        heard = subprocess.run(
            [*shlex.split(line), *port, "-C", "1", "-W", "5"], check=True, capture_output=True, text=True
        )
    assert heard.stdout == "pose/v1/hall/state online\n"


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join([*blocks("sh"), *re.findall(r"`([^`\n]+)`", README)])))
    assert {"demo", "test"} <= named <= targets


def test_every_file_that_is_linked_exists() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
