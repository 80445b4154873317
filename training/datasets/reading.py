"""What every reader of real data shares: a lazy list of pictures, image and label files with clear errors, splits without leaks.

A reader finds its pictures (`Found`: paths and names, nothing opened) and says how one label file becomes `Labels`; `SampleList`
does the rest when a picture is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.images import read_image
from getok_drive.types import MAX_IMAGE_PIXELS, Box, DrivableArea, ImageBgr, Lane, Sign
from training.samples import KINDS, Phrase, Sample

SPLITS = ("train", "val", "test", "all")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


@dataclass(frozen=True, slots=True)
class Found:
    """A picture that was found and not opened.

    Attributes:
        name: path below the data set's root; unique; becomes ``meta["source"]``, as ``KIND:NAME`` unless it bears its prefix
            already.
        sequence: the drive or clip that it belongs to; pictures of one sequence never go to different splits.
        image: the picture's file.
        label: whatever the reader needs to make its labels: a path, or a record already read.
    """

    name: str
    sequence: str
    image: Path
    label: Any = None


@dataclass(frozen=True, slots=True)
class Labels:
    """A `Sample` without its picture. Elements of a kind that is not ``known`` are refused: they would be trained on."""

    known: tuple[str, ...]
    lanes: tuple[Lane, ...] = ()
    drivable: tuple[DrivableArea, ...] = ()
    boxes: tuple[Box, ...] = ()
    signs: tuple[Sign, ...] = ()
    scene: Mapping[str, str] = field(default_factory=dict)
    masks: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    phrases: tuple[Phrase, ...] = ()


class SampleList(Sequence[Sample]):
    """Samples of a data set, each read from disk when it is indexed.

    Attributes:
        kind: name of the reader.
        keys: ``meta["source"]`` of each sample, known without opening a picture.
        sequences: ``meta["sequence"]`` of each sample, likewise.
        skipped: ``(name, reason)`` of what was found and left out, e.g. pictures without a label file.
    """

    def __init__(
        self,
        kind: str,
        terms: str,
        found: Iterable[Found],
        label: Callable[[Found, ImageBgr], Labels],
        skipped: Iterable[tuple[str, str]] = (),
        prefix: bool = True,
    ) -> None:
        self.kind, self.terms = kind, terms
        self._found, self._label = list(found), label
        self.skipped = list(skipped)
        self._prefix = f"{kind}:" if prefix else ""
        self.keys = [self._prefix + item.name for item in self._found]
        self.sequences = [item.sequence for item in self._found]
        twice = len(self.keys) - len(set(self.keys))
        if twice:
            raise InputError(f"{kind}: {twice} pictures are listed more than once; remove the repeated entries")

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> SampleList: ...

    def __getitem__(self, index: int | slice) -> Sample | SampleList:
        if isinstance(index, slice):
            return SampleList(self.kind, self.terms, self._found[index], self._label, self.skipped, bool(self._prefix))
        item = self._found[index]
        image = read_image(item.image)
        where = item.label if isinstance(item.label, Path) else item.image
        try:
            labels = self._label(item, image)
        except InputError as error:
            raise error if str(where) in str(error) else InputError(f"{where}: {error}") from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{where}: not a {self.kind} label ({what}); compare it with the data set's own description"
            ) from error
        return self._assemble(item, image, labels)

    def _assemble(self, item: Found, image: ImageBgr, labels: Labels) -> Sample:
        for kind in KINDS:
            if getattr(labels, kind) and kind not in labels.known:
                raise InputError(f"{item.name}: has {kind}, which the {self.kind} reader does not declare as known")
        meta = {
            "source": self._prefix + item.name,
            "dataset": self.kind,
            "sequence": item.sequence,
            "image_path": str(item.image),
            "terms": self.terms,
            **labels.meta,
        }
        return Sample(
            image,
            labels.lanes,
            labels.drivable,
            labels.boxes,
            labels.signs,
            labels.scene,
            labels.known,
            labels.masks,
            meta,
            labels.phrases,
        )


# --- files -----------------------------------------------------------------------------------------------------------


def read_mask(path: Path, wide: bool = False) -> npt.NDArray[np.uint8]:
    """A label picture as it is stored: ``(H, W)`` or ``(H, W, 3)`` (BGR) uint8; with ``wide`` uint16 too."""
    mask = _decode(path)
    if mask.ndim == 3 and mask.shape[2] == 4:
        mask = mask[:, :, :3]
    if mask.dtype != np.uint8 and not (wide and mask.dtype == np.uint16):
        raise InputError(f"{path}: expected an 8-bit label picture, got {mask.dtype}")
    return mask


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is the data set complete?") from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error:  # e.g. a header that promises more pixels than OpenCV accepts
        image = None
    if image is None:
        raise InputError(f"{path}: not a picture that OpenCV can read ({len(data)} bytes); the file is broken, copy it again")
    if image.shape[0] * image.shape[1] > MAX_IMAGE_PIXELS:
        raise InputError(f"{path}: {image.shape[1]}x{image.shape[0]} px is above the limit of {MAX_IMAGE_PIXELS} px")
    return np.asarray(image)


def same_size(image: ImageBgr, mask: npt.NDArray[np.generic], path: Path) -> None:
    """Raise `InputError` unless the label picture has the size of the photograph."""
    if image.shape[:2] != mask.shape[:2]:
        raise InputError(
            f"{path}: label picture of {mask.shape[1]}x{mask.shape[0]} px for a photograph of "
            f"{image.shape[1]}x{image.shape[0]} px; they must be of one size (were the photographs resized?)"
        )


def read_text(path: Path) -> str:
    """A text file; `InputError` when it is missing or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is the data set complete?") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); the file is broken or of another format") from error


def read_json(path: Path) -> Any:
    """A JSON file; `InputError` naming line and column when it is broken."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error


def read_json_lines(path: Path) -> list[Any]:
    """One JSON value per line, empty lines left out; `InputError` naming the line when one is broken."""
    values = []
    for number, line in enumerate(read_text(path).split("\n"), 1):  # splitlines would also cut texts at U+2028 and the like
        if line.strip():
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}: line {number} is not JSON ({error.msg}); was the file cut off?") from error
    return values


def images_below(folder: Path) -> list[Path]:
    """Pictures below a folder, in the order of their paths; empty when there is no such folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def image_named(folder: Path, stem: str) -> Path | None:
    """The picture ``folder/stem`` with whichever suffix it has."""
    for suffix in IMAGE_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.exists():
            return path
    return None


# --- splits ----------------------------------------------------------------------------------------------------------


def check_split(split: str, kind: str) -> None:
    """Raise `ConfigError` unless ``split`` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ConfigError(f"{kind}: unknown split {split!r}; use one of {', '.join(SPLITS)}")


def split_of(sequence: str, shares: Mapping[str, float] = SHARES) -> str:
    """The split of a sequence by a hash of its name: the same on every machine, and unchanged when data are added.

    Args:
        sequence: name of the drive or clip.
        shares: share of the sequences for each split; any positive numbers.
    """
    at = int.from_bytes(hashlib.sha256(sequence.encode()).digest()[:8], "big") / 2**64 * sum(shares.values())
    for name, share in shares.items():
        at -= share
        if at < 0:
            return name
    return list(shares)[-1]


def by_sequence(found: Iterable[Found], split: str) -> list[Found]:
    """The pictures of a split, for data sets without an official one: whole sequences, by `split_of`."""
    return [item for item in found if split == "all" or split_of(item.sequence) == split]


def official(folders: Mapping[str, Path], split: str, kind: str) -> list[Path]:
    """The folders or files of an official split; for ``all`` every one that exists.

    Raises:
        ConfigError: an unknown split, or one that is not on this disk; names those that are.
    """
    check_split(split, kind)
    there = {name: path for name, path in folders.items() if path.exists()}
    if split == "all" and there:
        return list(dict.fromkeys(there.values()))
    if split not in there:
        have = f"there is {', '.join(there)}" if there else f"expected for example {next(iter(folders.values()))}"
        raise ConfigError(f"{kind}: no split {split!r} here; {have}")
    return [there[split]]
