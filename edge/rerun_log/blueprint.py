"""How a viewer lays out what a device logs, until its user wants it otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import rerun as rr
import rerun.blueprint as rrb
from rerun.blueprint.encodings import TimelineColumn

from edge.rerun_log.entities import (
    DEVICE_STATS,
    LOG,
    angles_entity,
    person_entity,
    points_3d_entity,
    stats_entity,
    video_entity,
)

# From above, from almost where the camera is, in metres as placement.standing_m has them. The eye goes along with
# those whom it looks at.
_EYE_M, _AT_M, _UP = (0.7, -1.9, 0.6), (0.0, -0.8, 3.1), (0.0, -1.0, 0.0)
_FLOOR = rr.components.Plane3D((0.0, -1.0, 0.0), 0.0)


# Curves end now, and go back so far.
_SECONDS = 10


def blueprint(cameras: Sequence[str], *, pictures: bool) -> rrb.Blueprint:
    """One camera has the whole window, two share it, more have a tab each. What is said, and how the device does, is
    always in view. pictures: whether there are any, or only people where they would be."""

    def picture(camera: str) -> rrb.View:
        return rrb.Spatial2DView(origin=video_entity(camera), name=f"{camera}: {'video' if pictures else 'people'}")

    def row(camera: str) -> rrb.Container:
        right = rrb.Vertical(_bodies(camera), _angles(camera), row_shares=[3, 2])
        return rrb.Horizontal(picture(camera), right, column_shares=[3, 2], name=camera)

    if len(cameras) == 1:
        body: rrb.Container = rrb.Vertical(row(cameras[0]), _below(cameras), row_shares=[4, 1])
    elif len(cameras) == 2:
        columns = [rrb.Vertical(*map(view, cameras)) for view in (picture, _bodies)]
        curves = rrb.Vertical(*map(_angles, cameras), _figures(cameras), _log(), row_shares=[2, 2, 2, 3])
        body = rrb.Horizontal(*columns, curves, column_shares=[4, 3, 3])
    else:
        body = rrb.Vertical(rrb.Tabs(*map(row, cameras)), _below(cameras), row_shares=[4, 1])
    return rrb.Blueprint(
        body,
        rrb.TimePanel(state="collapsed", timeline="time"),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        auto_views=False,
        auto_layout=False,
    )


def _below(cameras: Sequence[str]) -> rrb.Container:
    return rrb.Horizontal(_log(), _figures(cameras), column_shares=[3, 2])


def _figures(cameras: Sequence[str]) -> rrb.Container:
    return rrb.Tabs(*(_curves(stats_entity(camera), f"{camera}: frames") for camera in cameras), _device())


def _bodies(camera: str) -> rrb.View:
    return rrb.Spatial3DView(
        origin=person_entity(camera),
        name=f"{camera}: bodies in metres",
        line_grid=rrb.LineGrid3D(visible=True, spacing=0.5, plane=_FLOOR),
        eye_controls=rrb.EyeControls3D(
            position=_EYE_M, look_target=_AT_M, eye_up=_UP, tracking_entity=points_3d_entity(camera)
        ),
    )


def _angles(camera: str) -> rrb.View:
    return _curves(angles_entity(camera), f"{camera}: joint angles in degrees", (0.0, 180.0))


def _device() -> rrb.View:
    return _curves(DEVICE_STATS, "device")


def _curves(entity: str, name: str, span: tuple[float, float] | None = None) -> rrb.View:
    now = rrb.TimeRangeBoundary.cursor_relative()
    return rrb.TimeSeriesView(
        origin=entity,
        name=name,
        axis_y=None if span is None else rrb.ScalarAxis(range=span),
        plot_legend=rrb.Corner2D.LeftTop,  # its own place, on the right, is over what is new
        time_ranges=[
            rrb.VisibleTimeRange("time", start=rrb.TimeRangeBoundary.cursor_relative(seconds=-_SECONDS), end=now),
            rrb.VisibleTimeRange("frame_idx", start=rrb.TimeRangeBoundary.cursor_relative(seq=-30 * _SECONDS), end=now),
        ],
    )


def _log() -> rrb.View:
    # A time is not to be read in the width that it is given.
    hidden = [TimelineColumn(timeline, visible=False) for timeline in ("time", "frame_idx")]
    columns = rrb.TextLogColumns(timeline_columns=hidden, text_log_columns=["loglevel", "body"])
    return rrb.TextLogView(origin=LOG, name="events and log", columns=columns)
