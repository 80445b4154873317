"""The greedy rule mask -> grid tokens, and its inverse; numpy only.

Source: GETok (arXiv 2512.10554), section 3.2.1. With ``M_k`` the segmenter's mask for grid point k, of K, and ``M_gt`` the mask:

    minimise |pi|_0   subject to   IoU(M_gt, union of M_k over k with pi_k = 1) >= tau,   pi in {0, 1}^K

Greedy: again and again the point whose mask raises the union's IoU most, until tau.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from getok_drive.errors import ConfigError, InputError
from getok_drive.tokens.codec import cell_centers
from training.proposals import Proposals, count_ones, pack, unpack

TAU = 0.8


@dataclass(frozen=True, slots=True)
class GreedyResult:
    """The tokens of one mask.

    Attributes:
        cells: chosen grid points in the order chosen.
        iou: of the union of their masks with the ground truth.
        gains: IoU gained by each when it was chosen.
        reason: ``reached`` (tau), or why not: ``no_gain`` (no further proposal raises the IoU; with no cell chosen, none
            overlaps the object enough to start), or ``max_tokens``.
    """

    cells: tuple[int, ...]
    iou: float
    gains: tuple[float, ...]
    reason: str

    @property
    def reached(self) -> bool:
        """Whether tau was reached."""
        return self.reason == "reached"


def greedy_cells(mask: npt.ArrayLike, proposals: Proposals, tau: float = TAU, max_tokens: int = 64) -> GreedyResult:
    """The greedy rule, exactly: the largest IoU gain first, stop at ``IoU >= tau``.

    Among equal gains (many points propose the same mask) the point deepest inside the ground truth is taken, then the lowest
    cell: a token then lies on the object it stands for whenever the choice is free.

    No redundancy. A proposal is only taken if it *raises* the IoU, so on a multiply-connected region (holes, several parts, a
    part proposed by many points) no part is paid for twice. What the greedy order can leave behind is a mask that later ones
    have made superfluous; those are dropped at the end, smallest gain first, so that the answer is irreducible: without any
    one of its tokens the IoU would be below ``min(tau, iou)``. Dropping never costs more than that and is our addition.

    Args:
        mask: ``(H, W)`` of the proposals' size, true on the object.
        proposals: masks by grid point.
        tau: IoU at which to stop, above 0 and up to 1.
        max_tokens: most tokens.

    Raises:
        InputError: an empty mask or one of another size.
        ConfigError: tau or max_tokens out of range.
    """
    truth = np.asarray(mask, dtype=bool)
    if truth.shape != proposals.size_wh[::-1]:
        raise InputError(f"mask: {truth.shape} does not fit proposals for an image of {proposals.size_wh[::-1]} (H, W)")
    if not truth.any():
        raise InputError("mask: it has no foreground pixel; leave objects without pixels out")
    if not 0 < tau <= 1 or max_tokens < 1:
        raise ConfigError(f"greedy: expected 0 < tau <= 1 and max_tokens >= 1, got {tau} and {max_tokens}")
    wanted = pack(truth[None])[0]
    area = int(truth.sum())
    useful = np.flatnonzero(count_ones(proposals.words & wanted) > 0)
    words = proposals.words[useful]
    cells = _cell_of_each(truth, proposals)[useful]

    free = np.full_like(wanted, np.uint64(0xFFFFFFFFFFFFFFFF))
    common, union, iou = 0, area, 0.0
    chosen: list[int] = []
    gains: list[float] = []
    reason = "no_gain"
    while len(words):
        fresh = words & free
        inside = count_ones(fresh & wanted)
        outside = count_ones(fresh) - inside
        ious = (common + inside) / (union + outside)
        best = int(np.lexsort((cells[:, 1], -cells[:, 0], -ious))[0])
        if (common + inside[best]) * union <= common * (union + outside[best]):  # exact: no gain
            break
        if len(chosen) == max_tokens:
            reason = "max_tokens"
            break
        common, union = common + int(inside[best]), union + int(outside[best])
        gains.append(float(ious[best]) - iou)
        iou = common / union
        chosen.append(best)
        free &= ~words[best]
        if iou >= tau:
            reason = "reached"
            break
    kept = _irreducible(words, chosen, gains, wanted, area, tau)
    final = _iou(words[kept], wanted, area)
    if final >= tau:  # leaving out what had become redundant can raise the IoU, too
        reason = "reached"
    return GreedyResult(
        tuple(int(cells[k, 1]) for k in kept), final, tuple(g for k, g in zip(chosen, gains, strict=True) if k in kept), reason
    )


def _cell_of_each(truth: npt.NDArray[np.bool_], proposals: Proposals) -> npt.NDArray[np.float64]:
    """``(M, 2)``: how deep in the truth the deepest point of each different mask lies, pixels, and that point's cell."""
    width, height = proposals.size_wh
    depth_px = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    at = np.minimum(cell_centers(proposals.cells) * [width, height], [width - 1, height - 1]).astype(np.intp)
    depths = depth_px[at[:, 1], at[:, 0]]
    order = np.lexsort((proposals.cells, -depths))
    first = np.unique(proposals.index[order], return_index=True)[1]
    best = np.zeros((len(proposals.words), 2))
    taken = order[first]
    best[proposals.index[taken]] = np.stack([depths[taken], proposals.cells[taken]], axis=1)
    return best


def _iou(words: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64], area: int) -> float:
    if not len(words):
        return 0.0
    union = np.bitwise_or.reduce(words, axis=0)
    common = int(count_ones(union & wanted))
    return common / (int(count_ones(union)) + area - common)


def _irreducible(
    words: npt.NDArray[np.uint64], chosen: list[int], gains: list[float], wanted: npt.NDArray[np.uint64], area: int, tau: float
) -> list[int]:
    """``chosen`` without those that the others make superfluous; smallest gain first.

    Leaving one out takes its wrong pixels away, too, so that another may become superfluous that was not before: after each the
    search begins anew.
    """
    kept, iou = list(chosen), _iou(words[chosen], wanted, area)
    order = [k for _, k in sorted(zip(gains, chosen, strict=True))]
    waiting = list(order)
    while waiting:
        candidate = waiting.pop(0)
        rest = [k for k in kept if k != candidate]
        if rest and (without := _iou(words[rest], wanted, area)) >= min(tau, iou):
            kept, iou = rest, without
            waiting = [k for k in order if k in rest]
    return kept


def union_mask(proposals: Proposals, cells: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """``(H, W)``: the union of the masks at some prompted cells, the inverse of `greedy_cells`; empty for no cells.

    Raises:
        InputError: a cell that was not prompted.
    """
    at = np.searchsorted(proposals.cells, np.asarray(cells, dtype=np.int64))
    asked = np.asarray(cells, dtype=np.int64).reshape(-1)
    if (at >= len(proposals.cells)).any() or (proposals.cells[np.minimum(at, len(proposals.cells) - 1)] != asked).any():
        raise InputError("proposals: a cell was not prompted")
    if not len(asked):
        return np.zeros(proposals.size_wh[::-1], dtype=bool)
    return unpack(np.bitwise_or.reduce(proposals.words[proposals.index[at]], axis=0)[None], proposals.size_wh)[0]
