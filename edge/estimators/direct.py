"""The landmarker by MediaPipe's C functions: what MediaPipe 1.x has below its Python API, called without that API.

A call of the API is handed to a thread of its own and back, and makes 66 objects a person. From two threads at once
that costs a tenth of the frames. Nothing below is promised by MediaPipe, so it is used only where it looks as
known: the functions with their arguments, and the structures, whose fields are looked up in MediaPipe's own ctypes
classes. Then the first people that a landmarker finds are read both ways. If they differ, or a later result is not
made as known, the API is used.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from edge.estimators.landmarker import Landmarker, Person, person_pixels, poses
from edge.estimators.tasks_api import TasksLandmarker, poses_of
from edge.vision.frame import UInt8Array
from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import MEDIAPIPE_POSE

log = logging.getLogger(__name__)

_STATUS = ctypes.c_int
_ADDRESS = ctypes.c_void_p

_KEYPOINTS = len(MEDIAPIPE_POSE.keypoints)

# Result and arguments. The last argument of what returns a status is where the text of its error goes.
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    # format, width, height, pixels, bytes, out: image
    "MpImageCreateFromUint8Data": (
        _STATUS,
        (ctypes.c_int, ctypes.c_int, ctypes.c_int, _ADDRESS, ctypes.c_int, _ADDRESS, _ADDRESS),
    ),
    "MpImageGetWidth": (ctypes.c_int, (_ADDRESS,)),
    "MpImageGetHeight": (ctypes.c_int, (_ADDRESS,)),
    # image, out: its pixels, which go with it
    "MpImageDataFloat32": (_STATUS, (_ADDRESS, _ADDRESS, _ADDRESS)),
    "MpImageFree": (None, (_ADDRESS,)),
    # landmarker, image, options or NULL, milliseconds, out: result
    "MpPoseLandmarkerDetectForVideo": (
        _STATUS,
        (_ADDRESS, _ADDRESS, _ADDRESS, ctypes.c_int64, _ADDRESS, _ADDRESS),
    ),
    "MpPoseLandmarkerCloseResult": (None, (_ADDRESS,)),
}


class NotAsKnown(Exception):
    """This MediaPipe differs from those that can be called directly; the text says in what."""


@dataclass
class Bindings:
    """What a direct call needs of MediaPipe. One serves all landmarkers of a process.

    result: MediaPipe's ctypes class of a result. image_landmark, world_landmark: structured dtypes of x, y, z and
    visibility, at their places in a landmark. rgb: the number of its format. read: makes MediaPipe's own result object
    of a C one. raise_for: raises what MediaPipe raises for a status and an error's text, nothing for success.
    """

    functions: dict[str, Callable[..., Any]]
    free_error: Callable[..., None]
    result: Any
    image_landmark: np.dtype[Any]
    world_landmark: np.dtype[Any]
    rgb: int
    read: Callable[[Any], Any]
    raise_for: Callable[[int, ctypes.c_char_p], None]
    wrong: bool = False
    """Whether a graph or a result was not as known; then they are used no more."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def found_wrong(self, why: str) -> None:
        with self._lock:
            if not self.wrong:
                _warn(why)
            self.wrong = True

    def check(self, status: int, error: ctypes.c_char_p) -> None:
        if status or error.value is not None:
            try:
                self.raise_for(status, error)
            finally:
                if error.value is not None:
                    self.free_error(error)


def bind(landmarkers: ModuleType, images: ModuleType, loader: ModuleType, statuses: ModuleType) -> Bindings:
    """From MediaPipe's modules pose_landmarker, image, mediapipe_c_bindings and mediapipe_c_utils.

    Raises NotAsKnown, or AttributeError and the like where something is missing.
    """
    signatures = {each.func_name: each for each in (*landmarkers._CTYPES_SIGNATURES, *images._CTYPES_SIGNATURES)}  # noqa: SLF001
    library = loader.load_raw_library()
    functions: dict[str, Callable[..., Any]] = {}
    for name, (returns, takes) in _FUNCTIONS.items():
        declared = signatures[name]
        if declared.restype is not returns or tuple(map(_kind, declared.argtypes)) != takes:
            raise NotAsKnown(f"{name} has other arguments")
        # A prototype of our own, for MediaPipe declares the library's again whenever it makes an image.
        functions[name] = ctypes.CFUNCTYPE(returns, *takes)((name, library))
    result = landmarkers.MpPoseLandmarkerResultC
    fields = dict(result._fields_)
    return Bindings(
        functions=functions,
        free_error=ctypes.CFUNCTYPE(None, _ADDRESS)(("MpErrorFree", library)),
        result=result,
        image_landmark=landmark_dtype(dict(fields["pose_landmarks"]._type_._fields_)["landmarks"]._type_),
        world_landmark=landmark_dtype(dict(fields["pose_world_landmarks"]._type_._fields_)["landmarks"]._type_),
        rgb=int(images.ImageFormat.SRGB),
        read=landmarkers.PoseLandmarkerResult.from_ctypes,
        raise_for=statuses.handle_status,
    )


def landmark_dtype(landmark: Any) -> np.dtype[Any]:
    """Where x, y, z and visibility lie in a landmark, and how far one is from the next. landmark: its ctypes class."""
    names = ["x", "y", "z", "visibility"]
    types = dict(landmark._fields_)
    if any(types[name] is not ctypes.c_float for name in names):
        raise NotAsKnown(f"{landmark.__name__} has other fields")
    offsets = [getattr(landmark, name).offset for name in names]
    return np.dtype({"names": names, "formats": ["f4"] * 4, "offsets": offsets, "itemsize": ctypes.sizeof(landmark)})


def _kind(argument: Any) -> Any:
    """All pointers are alike to the calling convention, and byref() fits c_void_p only."""
    is_pointer = argument is ctypes.c_char_p or hasattr(argument, "contents")
    return _ADDRESS if is_pointer else argument


def _warn(why: str) -> None:
    told = version("mediapipe"), why
    log.warning("MediaPipe %s can't be called directly (%s): MediaPipe's Python API is used instead", *told)


_process_lock = threading.Lock()
_of_process: list[Bindings | None] = []


def bindings() -> Bindings | None:
    """Those of this process and its MediaPipe, None where it can't be called directly."""
    with _process_lock:
        if not _of_process:
            _of_process.append(_bind_installed())
        return _of_process[0]


def _bind_installed() -> Bindings | None:
    try:
        from mediapipe.tasks.python.core import mediapipe_c_bindings, mediapipe_c_utils  # noqa: PLC0415
        from mediapipe.tasks.python.vision import pose_landmarker  # noqa: PLC0415
        from mediapipe.tasks.python.vision.core import image  # noqa: PLC0415

        return bind(pose_landmarker, image, mediapipe_c_bindings, mediapipe_c_utils)
    except Exception as error:  # noqa: BLE001 - whatever another version has changed, its API still works
        installed = version("mediapipe")
        if isinstance(error, ImportError) and int(installed.split(".")[0]) < 1:
            # As it should be: 0.10's library is a module of Python's, which only its API can call.
            log.debug("MediaPipe %s has no C functions to call: %s", installed, error)
        else:
            _warn(_in_words(error))
        return None


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def landmarker(tasks: TasksLandmarker, known: Bindings | None) -> Landmarker:
    """The one around MediaPipe's graph, called directly where that is possible, else as it is."""
    if known is None or known.wrong:
        return tasks
    try:
        return DirectLandmarker(tasks, known)
    except Exception as error:  # noqa: BLE001 - as in `_bind_installed`
        known.found_wrong(_in_words(error))
        return tasks


class DirectLandmarker:
    """A Landmarker. It takes its graph from one of MediaPipe's API, which it goes back to when a result is misread.

    Raises NotAsKnown, or AttributeError, for a graph without the handle that the functions take; `tasks` is good then.
    """

    def __init__(self, tasks: TasksLandmarker, bindings: Bindings) -> None:
        self._tasks = tasks
        self._bindings = bindings
        self._handle = tasks.graph._handle  # noqa: SLF001
        if not isinstance(self._handle, ctypes.c_void_p):
            raise NotAsKnown(f"the graph's handle is of {type(self._handle).__name__}")
        self._compared = False
        functions = bindings.functions
        self._make_image = partial(functions["MpImageCreateFromUint8Data"], bindings.rgb)
        self._free_image = functions["MpImageFree"]
        self._detect = functions["MpPoseLandmarkerDetectForVideo"]
        self._close_result = functions["MpPoseLandmarkerCloseResult"]

    def detect(self, pixels: UInt8Array, timestamp_ms: int) -> tuple[Pose, ...]:
        if self._bindings.wrong:
            return self._tasks.detect(pixels, timestamp_ms)
        out = ctypes.byref
        height, width, _ = pixels.shape
        image, error = ctypes.c_void_p(), ctypes.c_char_p()
        status = self._make_image(width, height, pixels.ctypes.data, pixels.size, out(image), out(error))
        self._bindings.check(status, error)
        try:
            result = self._bindings.result()
            status = self._detect(self._handle, image, None, timestamp_ms, out(result), out(error))
            self._bindings.check(status, error)
            try:
                return self._read(result)
            finally:
                self._close_result(out(result))
        finally:
            self._free_image(image)

    def close(self) -> None:
        self._tasks.close()

    def _read(self, result: Any) -> tuple[Pose, ...]:
        try:
            found = poses(self._people(result))
        except Exception as error:  # noqa: BLE001 - what is not there as known may fail in any way
            # The graph has worked: were its errors' types to get out of here, a new one would be made for nothing.
            self._bindings.found_wrong(_in_words(error))
            return poses_of(self._bindings.read(result))
        if self._compared or not result.pose_landmarks_count:
            return found
        self._compared = True
        expected = poses_of(self._bindings.read(result))
        if _bytes(found) != _bytes(expected):
            self._bindings.found_wrong("its own classes read a result otherwise")
        return expected

    def _people(self, result: Any) -> Iterator[Person]:
        """Copied, for the result is about to be freed. Raises NotAsKnown and other errors."""
        people, masks = result.pose_landmarks_count, result.segmentation_masks_count
        # Nothing but these numbers says where an array ends.
        if result.pose_world_landmarks_count != people or masks not in {0, people}:
            raise NotAsKnown(f"{people} people, {result.pose_world_landmarks_count} in the world, {masks} masks")
        for number in range(people):
            landmarks = _landmarks(result.pose_landmarks[number], self._bindings.image_landmark)
            world = _landmarks(result.pose_world_landmarks[number], self._bindings.world_landmark)
            mask = self._mask(result.segmentation_masks[number]) if masks else None
            yield _xyz(landmarks), landmarks["visibility"].copy(), _xyz(world), mask

    def _mask(self, image: int | None) -> UInt8Array:
        if image is None:
            raise NotAsKnown("a mask is missing")
        functions = self._bindings.functions
        data, error = ctypes.c_void_p(), ctypes.c_char_p()
        status = functions["MpImageDataFloat32"](image, ctypes.byref(data), ctypes.byref(error))
        self._bindings.check(status, error)
        shape = functions["MpImageGetHeight"](image), functions["MpImageGetWidth"](image)
        if data.value is None:
            raise NotAsKnown("a mask has no pixels")
        confidence = (ctypes.c_float * (shape[0] * shape[1])).from_address(data.value)
        return person_pixels(np.frombuffer(confidence, np.float32).reshape(shape))


def _landmarks(listed: Any, landmark: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """A view of MediaPipe's memory, one for each keypoint."""
    if listed.landmarks_count != _KEYPOINTS:
        raise NotAsKnown(f"{listed.landmarks_count} landmarks")
    address = ctypes.addressof(listed.landmarks.contents)
    memory: Any = (ctypes.c_char * (_KEYPOINTS * landmark.itemsize)).from_address(address)
    return np.frombuffer(memory, landmark)


def _xyz(landmarks: np.ndarray[Any, np.dtype[Any]]) -> Float32Array:
    xyz: Float32Array = np.empty((len(landmarks), 3), np.float32)
    for column, name in enumerate("xyz"):
        xyz[:, column] = landmarks[name]
    return xyz


def _bytes(people: tuple[Pose, ...]) -> list[tuple[bytes, ...]]:
    """Equal for poses that are equal bit for bit."""
    return [
        tuple(
            array.tobytes() for array in (pose.image_xyz, pose.visibility, pose.world_m, pose.mask) if array is not None
        )
        for pose in people
    ]
