"""What docs/certificates.md tells people to type, typed from top to bottom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.test_docs import ROOT, blocks
from tests.test_pki import KINDS, Site, handshake

pytestmark = pytest.mark.system

PAGE = (ROOT / "docs/certificates.md").read_text()
PYTHON = ".venv/ansible/bin/python"


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """The site that comes of it, in a home of its own, and what was printed."""
    home = tmp_path_factory.mktemp("home")
    (home / "deploy").symlink_to(ROOT / "deploy")
    (home / PYTHON).parent.mkdir(parents=True)
    (home / PYTHON).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (home / PYTHON).chmod(0o755)
    printed = ""
    for block in blocks(PAGE, "sh"):
        lines = "\n".join(line for line in block.splitlines() if not line.startswith("make "))
        done = subprocess.run(
            ["bash", "-ec", lines],
            check=False,
            cwd=home,
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{lines}\n{done.stderr}"
        printed += done.stdout
    return Site(home / "edge-pose-pki", home), printed


def test_all_have_certificates_in_the_end_and_one_is_revoked(typed: tuple[Site, str]) -> None:
    site, printed = typed
    assert "mqtt.cert: OK\n" in printed
    assert {(row["authority"], row["name"], row["role"], row["state"]) for row in site.listed()} == {
        ("servers", "hub", "", "valid"),
        ("devices", "hall-pi", "", "revoked"),
        ("people", "anna", "operator", "valid"),
        ("people", "otto", "reader", "valid"),
    }
    assert handshake(site, site.others / "broker.pem", site.others / "anna.pem", authority="people") == "operator"
    assert handshake(site, site.others / "broker.pem", site.others / "otto.pem", authority="people") == "reader"
    assert (site.others / "site-ca.pem").read_text() == (site.pki / "servers" / "ca.pem").read_text()
    copy = subprocess.run(
        ["tar", "-tf", site.others / "pki-backup.tar"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert {f"edge-pose-pki/{path.relative_to(site.pki)}" for path in site.pki.rglob("*.*") if path.is_file()} <= {
        *copy
    }
    assert (site.others / "pki-backup.tar").stat().st_mode & 0o077 == 0


def test_the_inventory_is_one(typed: tuple[Site, str]) -> None:
    (text,) = blocks(PAGE, "yaml")
    variables = yaml.safe_load(text)
    assert Path(variables["edge_pose_pki"]) == Path("~/edge-pose-pki")
    assert tomllib.loads(variables["edge_pose_config"])["mqtt"]["url"].startswith("mqtts://hub.local")


def test_what_the_page_says_of_days_is_so() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d) years? \|$", PAGE, re.MULTILINE))
    assert {name: int(years) * 365 for name, years in rows.items()} == {name: kind.days for name, kind in KINDS.items()}
