"""Modules left out of an import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.estimators.left_out import left_out


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that imports a plotting library, which is there and has a submodule."""
    (tmp_path / "plotting_lib").mkdir()
    (tmp_path / "plotting_lib" / "__init__.py").write_text("")
    (tmp_path / "plotting_lib" / "plots.py").write_text("def draw(): return 'drawn'")
    (tmp_path / "drawing_lib.py").write_text(
        "import plotting_lib\nimport plotting_lib.plots as plt\ndef draw(): return plt.draw()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "drawing_lib"
    for name in ("drawing_lib", "plotting_lib", "plotting_lib.plots"):
        sys.modules.pop(name, None)


def test_it_fails_where_it_is_used_and_says_why(library: str) -> None:
    with left_out("plotting_lib", "plotting_lib.plots"):
        import drawing_lib
    with pytest.raises(AttributeError, match=r"plotting_lib\.plots\.draw: edge-pose leaves plotting_lib\.plots out"):
        drawing_lib.draw()


def test_others_import_it_afterwards(library: str) -> None:
    with left_out("plotting_lib", "plotting_lib.plots"):
        import drawing_lib  # noqa: F401
    import plotting_lib.plots

    assert plotting_lib.plots.draw() == "drawn"


def test_what_is_imported_already_stays(library: str) -> None:
    import plotting_lib.plots

    with left_out("plotting_lib", "plotting_lib.plots"):
        import drawing_lib
    assert drawing_lib.draw() == "drawn"
    assert sys.modules["plotting_lib"] is plotting_lib


def test_nothing_is_left_behind_when_the_import_fails() -> None:
    with pytest.raises(ImportError), left_out("plotting_lib"):
        import no_such_module  # noqa: F401
    assert "plotting_lib" not in sys.modules


@pytest.mark.integration
def test_mediapipe_comes_without_matplotlib_which_can_still_be_had() -> None:
    """In a process of its own, for here mediapipe may be imported already."""
    script = """
import sys
from edge.estimators.mediapipe import _import_mediapipe
_import_mediapipe()
assert not [name for name in sys.modules if name.split(".")[0] == "matplotlib"]
import matplotlib.pyplot
assert matplotlib.pyplot.figure
"""
    run = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
