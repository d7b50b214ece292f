"""Colours as viewers take them to be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.rerun_log.colour import Bt709
from edge.vision.frame import UInt8Array


def decoded(planes: UInt8Array, height_px: int) -> list[int]:
    """The first pixel as RGB, by BT.709-6, table 3.3 to 3.5, in eight bits of limited range."""
    width_px = planes.shape[1]
    luma, (u, v) = planes[:height_px], planes[height_px:].reshape(2, height_px // 2, width_px // 2)
    y, cb, cr = (int(luma[0, 0]) - 16) / 219, (int(u[0, 0]) - 128) / 224, (int(v[0, 0]) - 128) / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return [round(255 * min(max(part, 0.0), 1.0)) for part in (red, green, blue)]


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (224, 172, 105)]
)
def test_a_colour_is_itself_again(colour: tuple[int, int, int]) -> None:
    rgb = np.full((16, 32, 3), colour, np.uint8)
    bt601 = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420), np.uint8)
    before = bt601.copy()
    assert np.abs(np.array(decoded(Bt709(32, 16)(bt601), 16)) - colour).max() <= 3
    assert (bt601 == before).all()


@given(st.data(), st.integers(1, 8), st.integers(1, 8))
def test_grey_pictures_stay_as_they_are(data: st.DataObject, half_width: int, half_height: int) -> None:
    width_px, height_px = 2 * half_width, 2 * half_height
    planes = np.full((height_px * 3 // 2, width_px), 128, np.uint8)
    planes[:height_px] = data.draw(arrays(np.uint8, (height_px, width_px)))
    planes.setflags(write=False)
    assert (Bt709(width_px, height_px)(planes) == planes).all()
