"""ROS bags with labels: ``bag:PATH``, an MCAP or sqlite3 bag in which cameras have a topic ``CAMERA/ground_truth``.

`getok_drive.ros.labels` says how a bag carries labels. A picture's name is its topic and capture time, ``/front/image_raw@NS``,
as in the ``scenes.jsonl`` of ``getok-drive replay``. A bag is one drive: it is never divided; its parts are its cameras, so
``--split /front/image_raw`` takes one of them and every other split all. Needs the package rosbags, no ROS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, overload

from getok_drive.errors import InputError
from getok_drive.ros.bag import IMAGE_TYPES, SCENE_TYPE, cameras_of, open_bag
from getok_drive.ros.images import compressed_to_bgr, image_to_bgr
from getok_drive.ros.labels import frame_key, labels_topic, scene_from_msg, stamp_ns_of
from getok_drive.types import ImageBgr, Scene
from training.samples import Sample

TERMS = "those of the bag's owner"


def sample_of(image_bgr: ImageBgr, labels: Scene, key: str, sequence: str) -> Sample:
    """A labelled image of a bag as a sample; every kind counts as labelled.

    Args:
        image_bgr: ``(H, W, 3)`` uint8.
        labels: what is in it, in its pixels.
        key: its name.
        sequence: the drive that it belongs to.
    """
    meta = {"source": key, "dataset": "bag", "sequence": sequence, "stamp_ns": labels.stamp_ns, "terms": TERMS}
    return Sample(image_bgr, labels.lanes, labels.drivable, labels.boxes, labels.signs, meta=meta)


def open_samples(path: Path, split: str = "all") -> BagSamples:
    """The labelled images of a bag.

    Args:
        path: a bag folder, an ``.mcap`` or a ``.db3`` file.
        split: an image topic; anything else takes all cameras.

    Raises:
        InputError: not a bag, no such topic, or no labels.
    """
    return BagSamples(path, (split,) if split.startswith("/") else ())


class BagSamples(Sequence[Sample]):
    """Samples of a bag, each read from it when it is indexed.

    Attributes:
        keys: ``meta["source"]`` of each sample.
        sequences: ``meta["sequence"]`` of each: the image topic.
        skipped: ``(name, reason)`` of labelled images that cannot be used.
    """

    def __init__(self, path: Path, topics: Sequence[str] = ()) -> None:
        self._path, self._topics = path, tuple(topics)
        self.skipped: list[tuple[str, str]] = []
        self._found: list[tuple[str, int, Scene]] = []  # image topic, recorded at (ns), labels
        with closing(open_bag(path)) as reader:
            cameras = [image for image, _, _ in cameras_of(reader.connections, topics).values()]
            labels = {
                (topic, stamp_ns_of(msg)): msg for topic, _, msg in _messages(reader, map(labels_topic, cameras), (SCENE_TYPE,))
            }
            if not labels:
                raise InputError(f"{path}: has no labels; expected {' or '.join(sorted(map(labels_topic, cameras)))}")
            for topic, time_ns, msg in _messages(reader, cameras, IMAGE_TYPES):
                label = labels.pop((labels_topic(topic), stamp_ns_of(msg)), None)
                if label is not None:
                    self._take(topic, time_ns, msg, label)
        self.keys = [frame_key(topic, labels.stamp_ns) for topic, _, labels in self._found]
        self.sequences = [topic for topic, _, _ in self._found]

    def _take(self, topic: str, time_ns: int, msg: Any, label: Any) -> None:
        try:
            labels, image = scene_from_msg(label), _picture(msg)
            if labels.image_size_wh != (image.shape[1], image.shape[0]):
                raise InputError(f"the label is for an image of {labels.image_size_wh} px")
        except InputError as error:
            self.skipped.append((frame_key(topic, stamp_ns_of(msg)), str(error)))
            return
        self._found.append((topic, time_ns, labels))

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        topic, time_ns, labels = self._found[index]
        with closing(open_bag(self._path)) as reader:  # opened anew: samples are asked for by workers of a loader, too
            for _, _, msg in _messages(reader, (topic,), IMAGE_TYPES, time_ns, time_ns + 1):
                if stamp_ns_of(msg) == labels.stamp_ns:
                    return sample_of(_picture(msg), labels, self.keys[index], topic)
        raise InputError(f"{self._path}: {self.keys[index]} is gone; was the bag written anew?")


def _messages(
    reader: Any, topics: Any, kinds: Any, start_ns: int | None = None, stop_ns: int | None = None
) -> Iterator[tuple[str, int, Any]]:
    """Topic, time of recording and message of some topics in the order of recording."""
    wanted = set(topics)
    connections = [c for c in reader.connections if c.topic in wanted and c.msgtype in kinds]
    if connections:  # rosbags takes an empty filter for none
        for connection, time_ns, data in reader.messages(connections, start=start_ns, stop=stop_ns):
            yield connection.topic, time_ns, reader.deserialize(data, connection.msgtype)


def _picture(msg: Any) -> ImageBgr:
    return compressed_to_bgr(msg) if hasattr(msg, "format") else image_to_bgr(msg)
