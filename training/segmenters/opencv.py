"""The segmenter without weights: watershed regions, merged by colour into a tree; a box prompt is cut out with GrabCut.

Sources: marker-controlled watershed (Meyer 1992) and GrabCut (Rother et al. 2004) of OpenCV; merging in the order of Ward's
criterion (1963).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.tokens.vocab import GRID_SIZE
from getok_drive.types import ImageBgr
from training.segmenters import Masks, Scores, checked_prompts

_BATCH = 128
_GRABCUT_SIDE_PX = 128  # boxes are cut out at most at this size
_MARGIN = 0.25  # of the box, on each side: the background that GrabCut learns from

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MergeTree:
    """Regions of an image, merged two by two until one is left. Nodes 0..leaves-1 are the regions, the last is the image.

    Attributes:
        rank: ``(H, W)`` the regions, numbered so that every node's regions are a range of numbers.
        low: ``(nodes,)`` first rank of a node.
        high: ``(nodes,)`` last rank of a node, plus 1.
        parent: ``(nodes,)`` the node it is merged into; the root is its own parent.
        height: ``(nodes,)`` Ward's cost of the merge that made it, never falling towards the root; 0 for a region.
        leaf: ``(H, W)`` node of the region of each pixel.
    """

    rank: Int
    low: Int
    high: Int
    parent: Int
    height: Float
    leaf: Int

    def mask(self, node: int) -> npt.NDArray[np.bool_]:
        """``(H, W)`` pixels of a node."""
        return (self.rank >= self.low[node]) & (self.rank < self.high[node])


class OpenCvSegmenter:
    """Default where no SAM fits. Honest limits: it knows colour only, so that an object of many colours needs many points.

    Without a box: the image is cut into ``seeds**2`` watershed regions that follow its edges (by default around the very grid
    points); neighbours are merged, the pair that adds least to the colour variance first (Ward), which gives a tree from regions
    to the whole image. A point means the largest node above it that was made by merges of no more than ``cost``: even surfaces
    become one region, objects keep theirs.

    With a box: GrabCut in the box, the point and its surroundings being sure foreground, everything outside sure background.
    """

    def __init__(self, seeds: int = GRID_SIZE, cost: float = 1500.0, blur_px: float = 0.8) -> None:
        """Take the settings.

        Args:
            seeds: watershed markers along each axis.
            cost: greatest cost of a merge, pixels times squared Lab distance, in an image of 100 000 pixels (other sizes in
                proportion). The default measured best: see docs/mask_tokens.md.
            blur_px: standard deviation of the blur before everything, pixels.
        """
        self._seeds, self._cost, self._blur_px = seeds, cost, blur_px

    @property
    def name(self) -> str:
        """The method and its settings."""
        return f"opencv-tree-1/{self._seeds}/{self._cost}/{self._blur_px}"

    def propose(
        self, image_bgr: ImageBgr, points_px: npt.ArrayLike, box_xyxy_px: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Masks, Scores]]:
        """See `training.segmenters.Segmenter.propose`."""
        points, box = checked_prompts(image_bgr, points_px, box_xyxy_px)
        if box is not None:
            for point in points if len(points) else [None]:
                yield _grab(image_bgr, box, point)[None], np.ones(1, np.float32)
            return
        tree = self.tree(image_bgr)
        at = np.rint(points).astype(np.intp)
        leaves, which = np.unique(tree.leaf[at[:, 1], at[:, 0]], return_inverse=True)
        chosen = [self._node(tree, int(leaf)) for leaf in leaves]
        for start in range(0, len(points), _BATCH):
            picked = [chosen[k] for k in which.reshape(-1)[start : start + _BATCH]]
            yield np.stack([tree.mask(node) for node, _ in picked]), np.array([score for _, score in picked], np.float32)

    def tree(self, image_bgr: ImageBgr) -> MergeTree:
        """The merge tree of an image; the part that is done once an image."""
        smooth = cv2.GaussianBlur(image_bgr, (0, 0), self._blur_px)
        lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
        return _merged(_regions(smooth, self._seeds), lab)

    def _node(self, tree: MergeTree, leaf: int) -> tuple[int, float]:
        """The node above the region ``leaf`` that a point means, and ``1 - cost / cost of the next merge`` as its score."""
        most = self._cost * tree.rank.size / 1e5
        node = leaf
        while (above := int(tree.parent[node])) != node and tree.height[above] <= most:
            node = above
        return node, 1.0 - most / tree.height[above] if above != node else 1.0


# --- the tree ----------------------------------------------------------------------------------------------------------


def _regions(smooth_bgr: ImageBgr, seeds: int) -> Int:
    """``(H, W)`` watershed regions 0..N-1 around a lattice of ``seeds**2`` markers (fewer on an image of fewer pixels)."""
    height, width = smooth_bgr.shape[:2]
    markers = np.zeros((height, width), np.int32)
    rows = np.unique(((np.arange(seeds) + 0.5) / seeds * height).astype(np.intp))
    columns = np.unique(((np.arange(seeds) + 0.5) / seeds * width).astype(np.intp))
    markers[np.ix_(rows, columns)] = np.arange(1, len(rows) * len(columns) + 1).reshape(len(rows), len(columns))
    found = cv2.watershed(smooth_bgr, markers.copy())
    # watershed leaves lines of -1 between the regions (and around the image): they go to the nearest region
    _, nearest = cv2.distanceTransformWithLabels(
        (found <= 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    region_of = np.zeros(int(nearest.max()) + 1, np.int64)
    inside = found > 0
    region_of[nearest[inside]] = found[inside]
    return np.unique(region_of[nearest], return_inverse=True)[1].reshape(height, width).astype(np.int64)


def _merged(regions: Int, lab: npt.NDArray[np.float32]) -> MergeTree:
    """The merge tree of regions by Ward's criterion: ``|a| |b| / (|a| + |b|) * |mean_a - mean_b|**2``, neighbours only."""
    count = int(regions.max()) + 1
    flat = regions.reshape(-1)
    nodes = 2 * count - 1
    total = [[0.0, 0.0, 0.0] for _ in range(nodes)]
    for channel in range(3):
        sums = np.bincount(flat, weights=lab[..., channel].reshape(-1).astype(np.float64), minlength=count)
        for region, value in enumerate(sums.tolist()):
            total[region][channel] = value
    size = [float(pixels) for pixels in np.bincount(flat, minlength=nodes)]

    def cost(a: int, b: int) -> float:
        apart = sum((x / size[a] - y / size[b]) ** 2 for x, y in zip(total[a], total[b], strict=True))
        return float(size[a] * size[b] / (size[a] + size[b]) * apart)

    pairs = [(regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])]
    touching = np.unique(np.concatenate([np.sort(np.stack([a[a != b], b[a != b]], axis=1), axis=1) for a, b in pairs]), axis=0)
    beside: list[set[int]] = [set() for _ in range(nodes)]
    queue = []
    for a, b in touching.tolist():
        beside[a].add(b)
        beside[b].add(a)
        queue.append((cost(a, b), a, b))
    heapq.heapify(queue)
    parent = np.arange(nodes)
    height = np.zeros(nodes)
    children: dict[int, tuple[int, int]] = {}
    gone = [False] * nodes
    node = count
    while queue:
        price, a, b = heapq.heappop(queue)
        if gone[a] or gone[b]:
            continue
        gone[a] = gone[b] = True
        parent[a] = parent[b] = node
        children[node] = (a, b)
        size[node] = size[a] + size[b]
        total[node] = [x + y for x, y in zip(total[a], total[b], strict=True)]
        height[node] = max(price, height[a], height[b])
        beside[node] = (beside[a] | beside[b]) - {a, b}
        for other in beside[node]:
            beside[other] -= {a, b}
            beside[other].add(node)
            heapq.heappush(queue, (cost(node, other), other, node))
        node += 1
    low, high = _ranges(children, count, nodes)
    return MergeTree(low[regions], low, high, parent, height, regions)


def _ranges(children: dict[int, tuple[int, int]], leaves: int, nodes: int) -> tuple[Int, Int]:
    """First rank and last rank plus 1 of every node when the leaves are numbered from left to right below the root."""
    low, high = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
    high[:leaves] = 1
    for node in range(leaves, nodes):
        high[node] = sum(high[child] for child in children[node])
    for node in range(nodes - 1, leaves - 1, -1):  # parents have higher numbers than their children
        first, second = children[node]
        low[first], low[second] = low[node], low[node] + high[first]
    return low, low + high


# --- boxes -------------------------------------------------------------------------------------------------------------


def _grab(image_bgr: ImageBgr, box: Float, point: Float | None) -> npt.NDArray[np.bool_]:
    """``(H, W)`` mask of what GrabCut takes for the object in a box; the box itself if it finds nothing or has no outside."""
    height, width = image_bgr.shape[:2]
    whole = np.zeros((height, width), dtype=bool)
    x0, y0 = np.ceil(box[:2]).astype(int)  # pixels whose centre is in the box
    x1, y1 = np.maximum(np.floor(box[2:]).astype(int) + 1, [x0 + 1, y0 + 1])
    around_x, around_y = max(3, round(_MARGIN * (x1 - x0))), max(3, round(_MARGIN * (y1 - y0)))
    left, top = max(0, x0 - around_x), max(0, y0 - around_y)
    right, bottom = min(width, x1 + around_x), min(height, y1 + around_y)
    crop = np.ascontiguousarray(image_bgr[top:bottom, left:right])
    labels = np.full(crop.shape[:2], cv2.GC_BGD, np.uint8)
    labels[y0 - top : y1 - top, x0 - left : x1 - left] = cv2.GC_PR_FGD
    if point is not None:
        radius = max(1, round(0.08 * min(x1 - x0, y1 - y0)))
        spot = np.zeros_like(labels)
        cv2.circle(spot, (round(point[0]) - left, round(point[1]) - top), radius, 1, -1)
        labels[(spot > 0) & (labels == cv2.GC_PR_FGD)] = cv2.GC_FGD
    in_box = labels != cv2.GC_BGD
    scale = min(1.0, _GRABCUT_SIDE_PX / max(crop.shape[:2]))
    small_wh = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    small = cv2.resize(crop, small_wh, interpolation=cv2.INTER_AREA)
    marked = cv2.resize(labels, small_wh, interpolation=cv2.INTER_NEAREST)
    found = in_box
    if (marked == cv2.GC_BGD).sum() >= 5 and (marked != cv2.GC_BGD).sum() >= 5:  # GrabCut fits five colours to each side
        cv2.setRNGSeed(0)  # its k-means starts at random
        cv2.grabCut(small, marked, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
        object_there = ((marked == cv2.GC_FGD) | (marked == cv2.GC_PR_FGD)).astype(np.uint8)
        grown = cv2.resize(object_there, crop.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(bool) & in_box
        found = grown if grown.any() else in_box
    whole[top:bottom, left:right] = found
    return whole
