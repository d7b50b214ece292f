"""The modes, and what each lets out."""

from __future__ import annotations

from typing import get_args

import pytest

from edge.privacy import Mode, Shows, most_declared, most_shown


def test_each_mode_lets_out_less_than_the_one_before() -> None:
    assert [most_shown(mode) for mode in get_args(Mode)] == [Shows.PICTURES, Shows.SILHOUETTES, Shows.NUMBERS]


@pytest.mark.parametrize("word", ["", "landmark", "Landmarks", "none"])
def test_who_does_not_say_in_which_mode_something_was_made_may_have_made_anything(word: str) -> None:
    assert most_declared(word) is Shows.PICTURES
    assert [most_declared(mode) for mode in get_args(Mode)] == [most_shown(mode) for mode in get_args(Mode)]
