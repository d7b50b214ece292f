"""MediaPipe called directly against its Python API, on the real library, model and clips."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from edge.estimators import direct
from edge.estimators.direct import Bindings, DirectLandmarker, NotAsKnown, bind, landmark_dtype
from edge.estimators.landmarker import Landmarker, Person
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.tasks_api import TasksLandmarker
from edge.vision.frame import Frame
from edge.vision.pose import Pose
from tests.conftest import CLIP, frame
from tests.estimators.test_mediapipe import TWO_PEOPLE, frames

pytestmark = pytest.mark.integration

Answers = list[tuple[Pose, ...]]


@pytest.fixture(scope="module")
def mediapipe(model: Path) -> Any:
    """The package, imported as the estimator imports it: it doesn't report its use."""
    with MediaPipeEstimator(model):
        import mediapipe as mp
    return mp


def modules() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """The four of MediaPipe's that `bind` takes."""
    from mediapipe.tasks.python.core import mediapipe_c_bindings, mediapipe_c_utils
    from mediapipe.tasks.python.vision import pose_landmarker
    from mediapipe.tasks.python.vision.core import image

    return pose_landmarker, image, mediapipe_c_bindings, mediapipe_c_utils


@contextmanager
def by_api(mediapipe: Any, model: Path, *, max_people: int = 1, masks: bool = True) -> Iterator[TasksLandmarker]:
    vision = mediapipe.tasks.vision
    options = vision.PoseLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=max_people,
        output_segmentation_masks=masks,
    )
    landmarker = TasksLandmarker(vision.PoseLandmarker.create_from_options(options), mediapipe)
    try:
        yield landmarker
    finally:
        landmarker.close()


def answers(landmarker: Landmarker, clip: Sequence[Frame]) -> Answers:
    return [landmarker.detect(each.rgb.pixels, each.monotonic_ns // 1_000_000) for each in clip]


def assert_equal(found: Answers, expected: Answers) -> None:
    """Bit for bit."""
    assert len(found) == len(expected)
    for here, there in zip(found, expected, strict=True):
        assert len(here) == len(there)
        for one, other in zip(here, there, strict=True):
            for name in ("image_xyz", "visibility", "world_m", "mask"):
                ours, theirs = getattr(one, name), getattr(other, name)
                assert (ours is None) == (theirs is None)
                if ours is not None:
                    assert ours.shape == theirs.shape
                    assert ours.dtype == theirs.dtype
                    assert ours.tobytes() == theirs.tobytes(), name


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("clip", "count", "max_people"), [(CLIP, 60, 1), (TWO_PEOPLE, 20, 3)])
def test_both_ways_give_the_same(
    mediapipe: Any, model: Path, clip: Path, count: int, max_people: int, *, masks: bool
) -> None:
    seen = list(frames(clip, count))
    with by_api(mediapipe, model, max_people=max_people, masks=masks) as landmarker:
        expected = answers(landmarker, seen)
    bindings = bind(*modules())
    with by_api(mediapipe, model, max_people=max_people, masks=masks) as graph:
        found = answers(DirectLandmarker(graph, bindings), seen)
    assert_equal(found, expected)
    assert max(map(len, found)) == min(2, max_people)
    assert not bindings.wrong


def test_sides_that_no_step_divides(mediapipe: Any, model: Path) -> None:
    pixels = [np.ascontiguousarray(each.rgb.pixels[:477, :-3]) for each in frames(CLIP, 3)]
    with by_api(mediapipe, model) as one, by_api(mediapipe, model) as other:
        called = DirectLandmarker(one, bind(*modules()))
        found = [called.detect(each, number) for number, each in enumerate(pixels)]
        expected = [other.detect(each, number) for number, each in enumerate(pixels)]
    assert_equal(found, expected)
    ((pose,), *_) = found
    assert pose.mask is not None
    assert pose.mask.shape == (119, 159)


def test_it_is_what_the_estimator_uses_here(mediapipe: Any, model: Path) -> None:
    with MediaPipeEstimator(model) as estimator:
        assert isinstance(estimator._landmarker, DirectLandmarker)


@pytest.mark.parametrize("misread", ["image", "world"])
def test_a_layout_that_lies_is_found_out_by_the_first_people(
    mediapipe: Any, model: Path, misread: str, caplog: pytest.LogCaptureFixture
) -> None:
    """y and z have changed places: plausible numbers, all wrong."""

    class Shifted(ctypes.Structure):
        _fields_ = (
            ("x", ctypes.c_float),
            ("z", ctypes.c_float),
            ("y", ctypes.c_float),
            ("has_visibility", ctypes.c_bool),
            ("visibility", ctypes.c_float),
            ("has_presence", ctypes.c_bool),
            ("presence", ctypes.c_float),
            ("name", ctypes.c_char_p),
        )

    seen = list(frames(CLIP, 6))
    bindings = dataclasses.replace(bind(*modules()), **{f"{misread}_landmark": landmark_dtype(Shifted)})
    with by_api(mediapipe, model) as landmarker:
        expected = answers(landmarker, seen)
    with by_api(mediapipe, model) as one, by_api(mediapipe, model) as other:
        empty = frame(width_px=320, height_px=240).rgb.pixels
        first, second = DirectLandmarker(one, bindings), DirectLandmarker(other, bindings)
        assert first.detect(empty, 1) == ()
        assert not bindings.wrong
        assert_equal(answers(first, seen), expected)
        assert bindings.wrong
        assert_equal(answers(second, seen), expected)
    (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert mediapipe.__version__ in told.getMessage()
    assert "MediaPipe's Python API is used instead" in told.getMessage()


def test_what_cannot_even_be_read_is_wrong_too(mediapipe: Any, model: Path) -> None:
    unread = np.dtype({"names": ["x", "y"], "formats": ["f4"] * 2, "offsets": [0, 4], "itemsize": 40})
    bindings = dataclasses.replace(bind(*modules()), image_landmark=unread)
    with by_api(mediapipe, model) as graph:
        assert all(answers(DirectLandmarker(graph, bindings), list(frames(CLIP, 3))))
    assert bindings.wrong


Undo = Callable[[], None]


def set_field(structure: Any, name: str, value: object) -> Undo:
    before = getattr(structure, name)
    setattr(structure, name, value)
    return lambda: setattr(structure, name, before)


def no_landmarks(structure: Any) -> Undo:
    address = ctypes.addressof(structure.landmarks.contents)
    pointer = type(structure.landmarks)
    structure.landmarks = pointer()
    return lambda: setattr(structure, "landmarks", ctypes.cast(address, pointer))


def no_mask(result: Any) -> Undo:
    before = result.segmentation_masks[0]
    result.segmentation_masks[0] = None
    return lambda: result.segmentation_masks.__setitem__(0, before)


SPOILT: dict[str, Callable[[Any], Undo]] = {
    "0 in the world": lambda result: set_field(result, "pose_world_landmarks_count", 0),
    "2 masks": lambda result: set_field(result, "segmentation_masks_count", 2),
    "0 people": lambda result: set_field(result, "pose_landmarks_count", 0),
    "34 landmarks": lambda result: set_field(result.pose_landmarks[0], "landmarks_count", 34),
    "32 landmarks": lambda result: set_field(result.pose_world_landmarks[0], "landmarks_count", 32),
    "NULL": lambda result: no_landmarks(result.pose_world_landmarks[0]),
    "a mask is missing": no_mask,
}
"""Ways in which a result may not be as known, by what is said of it."""


def spoiling(bindings: Bindings, spoil: Callable[[Any], Undo]) -> Bindings:
    """Bindings whose results are spoilt after the first one, and whole again for MediaPipe itself."""
    detect = bindings.functions["MpPoseLandmarkerDetectForVideo"]
    close_result = bindings.functions["MpPoseLandmarkerCloseResult"]
    undo = list[Undo]()
    calls = 0

    def spoilt(*arguments: Any) -> Any:
        nonlocal calls
        status = detect(*arguments)
        if calls:
            undo.append(spoil(arguments[4]._obj))
        calls += 1
        return status

    def whole_again(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(result: Any) -> Any:
            while undo:
                undo.pop()()
            return function(result)

        return call

    functions = {
        **bindings.functions,
        "MpPoseLandmarkerDetectForVideo": spoilt,
        "MpPoseLandmarkerCloseResult": whole_again(close_result),
    }
    return dataclasses.replace(bindings, functions=functions, read=whole_again(bindings.read))


@pytest.fixture(scope="module")
def first_three(mediapipe: Any, model: Path) -> tuple[list[Frame], Answers]:
    """Frames and what the API says to them."""
    seen = list(frames(CLIP, 3))
    with by_api(mediapipe, model) as landmarker:
        return seen, answers(landmarker, seen)


def assert_the_api_answers(
    landmarker: DirectLandmarker, bindings: Bindings, expected: tuple[list[Frame], Answers], why: str, log: Any
) -> None:
    assert_equal(answers(landmarker, expected[0]), expected[1])
    assert bindings.wrong
    (told,) = [record for record in log.records if record.levelno >= logging.WARNING]
    assert why in told.getMessage()


@pytest.mark.parametrize("why", SPOILT)
def test_a_result_that_is_not_made_as_known_is_the_apis_business(
    mediapipe: Any, model: Path, first_three: tuple[list[Frame], Answers], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the first one was; and it is no failure of the graph."""
    bindings = spoiling(bind(*modules()), SPOILT[why])
    with by_api(mediapipe, model) as graph:
        assert_the_api_answers(DirectLandmarker(graph, bindings), bindings, first_three, why, caplog)


def test_a_mask_without_pixels_is_no_failure_of_the_graph(
    mediapipe: Any, model: Path, first_three: tuple[list[Frame], Answers], caplog: pytest.LogCaptureFixture
) -> None:
    bindings = bind(*modules())
    bindings.functions["MpImageDataFloat32"] = lambda *_: 0
    with by_api(mediapipe, model) as graph:
        landmarker = DirectLandmarker(graph, bindings)
        assert_the_api_answers(landmarker, bindings, first_three, "a mask has no pixels", caplog)


def test_nothing_of_a_person_is_mediapipes_memory(
    mediapipe: Any, model: Path, first_three: tuple[list[Frame], Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    people: list[Person] = []

    def kept(found: Iterator[Person]) -> tuple[Pose, ...]:
        people.extend(found)
        return ()

    with by_api(mediapipe, model) as graph:
        landmarker = DirectLandmarker(graph, bind(*modules()))
        monkeypatch.setattr(direct, "poses", kept)
        answers(landmarker, first_three[0][:1])
    (person,) = people
    for array in person:
        assert array is not None
        memory: Any = array
        while isinstance(memory, np.ndarray) and memory.base is not None:
            memory = memory.base
        assert isinstance(memory, np.ndarray)


class OtherGraph:
    """A graph of MediaPipe's whose handle has another name, or is of another kind."""

    def __init__(self, graph: Any, *named: str) -> None:
        self.detect_for_video = graph.detect_for_video
        self.close = graph.close
        for name in named:
            setattr(self, name, object())


@pytest.mark.parametrize("name", ["_pointer", "_handle"])
def test_a_graph_without_the_known_handle_is_used_by_the_api(
    mediapipe: Any,
    model: Path,
    first_three: tuple[list[Frame], Answers],
    *,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    landmarkers = mediapipe.tasks.vision.PoseLandmarker
    make, graphs = landmarkers.create_from_options, list[Any]()

    def make_other(options: Any) -> OtherGraph:
        graphs.append(make(options))
        return OtherGraph(graphs[-1], name)

    monkeypatch.setattr(landmarkers, "create_from_options", make_other)
    monkeypatch.setattr(direct, "_of_process", [])
    seen, expected = first_three
    for _ in range(2):
        with MediaPipeEstimator(model) as estimator:
            assert_equal([estimator.estimate(each) for each in seen], expected)
    assert [graph._handle for graph in graphs] == [None, None], "a graph was not closed"
    (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "handle" in told.getMessage()
    assert "MediaPipe's Python API is used instead" in told.getMessage()


@pytest.mark.parametrize(("installed", "level"), [("0.10.18", logging.DEBUG), ("1.9.0", logging.WARNING)])
def test_a_module_that_is_missing_is_worth_a_warning_where_it_should_be_there(
    mediapipe: Any, installed: str, level: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edge")
    monkeypatch.setattr(direct, "_of_process", [])
    monkeypatch.setattr(direct, "version", lambda _: installed)
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python.vision.core", None)
    assert direct.bindings() is None
    (told,) = caplog.records
    assert told.levelno == level
    assert "mediapipe.tasks.python.vision.core" in told.getMessage()


def test_a_mediapipe_without_c_functions_is_not_bound(mediapipe: Any) -> None:
    landmarkers, _, loader, statuses = modules()
    with pytest.raises(AttributeError):
        bind(math, *modules()[1:])
    with pytest.raises(KeyError):
        bind(landmarkers, landmarkers, loader, statuses)  # has no functions for images


def test_other_arguments_or_fields_are_not_bound(mediapipe: Any) -> None:
    landmarkers, images, loader, statuses = modules()
    changed = ModuleType("image")
    changed.ImageFormat = images.ImageFormat  # type: ignore[attr-defined]
    changed._CTYPES_SIGNATURES = tuple(  # type: ignore[attr-defined]
        dataclasses.replace(each, argtypes=[*each.argtypes, ctypes.c_int]) if each.func_name == "MpImageFree" else each
        for each in images._CTYPES_SIGNATURES
    )
    with pytest.raises(NotAsKnown, match="MpImageFree"):
        bind(landmarkers, changed, loader, statuses)

    class Doubles(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_double) for name in ("x", "y", "z", "visibility"))

    with pytest.raises(NotAsKnown, match="Doubles"):
        landmark_dtype(Doubles)


def test_errors_are_mediapipes_own(mediapipe: Any, model: Path) -> None:
    pixels = frame(width_px=64, height_px=48).rgb.pixels
    with by_api(mediapipe, model) as graph:
        landmarker = DirectLandmarker(graph, bind(*modules()))
        landmarker.detect(pixels, 1)
        with pytest.raises(ValueError, match="timestamp") as found:
            landmarker.detect(pixels, 1)
        with pytest.raises(ValueError, match="timestamp") as expected:
            graph.detect(pixels, 1)
    assert str(found.value) == str(expected.value)


def test_two_threads_with_two_estimators(model: Path) -> None:
    seen = list(frames(CLIP, 30))
    with MediaPipeEstimator(model) as estimator:
        expected = [estimator.estimate(each) for each in seen]
    found: dict[int, Answers] = {}

    def work(number: int) -> None:
        with MediaPipeEstimator(model) as estimator:
            found[number] = [estimator.estimate(each) for each in seen]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for number in range(2):
        assert_equal(found[number], expected)


def rss_anon_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


def test_memory_stays(mediapipe: Any, model: Path) -> None:
    """With a person in each: images, results, masks and errors are made and freed.

    A result that is not freed shows as 300 KiB or more, an image as 225: all else is little beside it.
    """
    (person,) = frames(CLIP, 1)
    small = np.ascontiguousarray(cv2.resize(person.rgb.pixels, (320, 240), interpolation=cv2.INTER_AREA))
    with by_api(mediapipe, model) as graph:
        landmarker = DirectLandmarker(graph, bind(*modules()))
        people = 0
        for number in range(400):
            if number == 100:
                before_kib = rss_anon_kib()
            people += len(landmarker.detect(small, number + 1))
            with pytest.raises(ValueError, match="timestamp"):
                landmarker.detect(small, 0)
        grown_kib = rss_anon_kib() - before_kib
    assert people > 300
    assert grown_kib < 16 * 1024, f"{grown_kib} KiB in 300 frames"


def test_one_set_of_bindings_serves_the_process(mediapipe: Any) -> None:
    assert direct.bindings() is direct.bindings() is not None
