"""One-to-one matching of predictions to ground truth: the exact assignment, and CULane's slightly inexact one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def assign(scores: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """The one-to-one matching with the greatest total score.

    Shortest augmenting paths with potentials (Jonker and Volgenant, 1987), O(n^2 m). Every row of the smaller side is matched,
    whatever its score: callers filter by score afterwards. Ties are broken in a fixed but unspecified way.

    Args:
        scores: ``(G, P)`` finite scores.

    Returns:
        Matched rows (ascending) and their columns, ``min(G, P)`` each.

    Raises:
        ValueError: if a score is NaN or infinite, or ``scores`` is not a matrix.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise ValueError(f"assign: expected a matrix of finite scores, got shape {matrix.shape}")
    transposed = matrix.shape[0] > matrix.shape[1]
    cost = -(matrix.T if transposed else matrix)
    count, width = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(width)
    row_of = np.full(width, -1, dtype=np.int64)  # row matched to each column
    for new_row in range(count):
        shortest = np.full(width, np.inf)
        before = np.full(width, -1, dtype=np.int64)  # the row from which each column is reached
        done = np.zeros(width, dtype=bool)
        visited_rows: list[int] = []
        row, distance, free = new_row, 0.0, -1
        while free < 0:
            visited_rows.append(row)
            reduced = distance + cost[row] - row_price[row] - column_price
            better = ~done & (reduced < shortest)
            shortest[better], before[better] = reduced[better], row
            column = int(np.argmin(np.where(done, np.inf, shortest)))
            distance = float(shortest[column])
            done[column] = True
            if row_of[column] < 0:
                free = column
            else:
                row = int(row_of[column])
        column_of = {int(row_of[c]): c for c in np.flatnonzero(done) if row_of[c] >= 0}
        for row in visited_rows:
            row_price[row] += distance - (shortest[column_of[row]] if row in column_of else 0.0)
        column_price[done] -= distance - shortest[done]
        while True:  # hand the free column back along the path
            row = int(before[free])
            previous = np.flatnonzero(row_of == row)
            row_of[free] = row
            if row == new_row:
                break
            free = int(previous[0])
    columns = np.flatnonzero(row_of >= 0)
    pairs = (columns, row_of[columns]) if transposed else (row_of[columns], columns)
    order = np.argsort(pairs[0])
    return pairs[0][order], pairs[1][order]


def assign_within(distances: npt.ArrayLike, limit: float) -> tuple[IntArray, IntArray]:
    """As many pairs as possible with ``distance <= limit``, and among those matchings the one of least total distance.

    Args:
        distances: ``(G, P)`` distances; NaN and infinity never match.
        limit: greatest distance of a pair, in the distances' unit.

    Returns:
        Matched rows (ascending) and their columns.
    """
    matrix = np.asarray(distances, dtype=np.float64)
    if 0 in matrix.shape:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    allowed = matrix <= limit
    closeness = 1.0 - np.where(allowed, matrix, 0.0) / limit if limit > 0 else np.zeros(matrix.shape)
    scores = np.where(allowed, min(matrix.shape) + 1.0 + closeness, 0.0)  # one pair more outweighs all closeness
    rows, columns = assign(scores)
    keep = allowed[rows, columns]
    return rows[keep], columns[keep]


def assign_culane(scores: npt.ArrayLike, tolerance: float = 1e-2) -> tuple[IntArray, IntArray]:
    """The matching that CULane's own evaluator makes: Kuhn and Munkres with edges that count as tight within 0.01.

    The tolerance makes it stop at a matching whose total may be up to ``n * 0.01`` below the best, which now and then changes a
    count; results of the official tool are only reproduced by having the same tolerance and the same search order (rows of
    the smaller side, then columns, both ascending).

    Args:
        scores: ``(G, P)`` similarities in 0..1, neither side empty.
        tolerance: slack within which an edge counts as tight.

    Returns:
        Matched rows (ascending) and their columns, ``min(G, P)`` each.
    """
    matrix = np.asarray(scores, dtype=np.float64)
    transposed = matrix.shape[0] > matrix.shape[1]
    values: list[list[float]] = (matrix.T if transposed else matrix).tolist()
    count, width = len(values), len(values[0])
    row_price = [max(row) for row in values]
    column_price = [0.0] * width
    row_of: list[int] = [-1] * width

    def augment(row: int, rows_seen: set[int], columns_seen: set[int]) -> bool:
        rows_seen.add(row)
        for column in range(width):
            slack = row_price[row] + column_price[column] - values[row][column]
            if column not in columns_seen and abs(slack) < tolerance:
                columns_seen.add(column)
                if row_of[column] < 0 or augment(row_of[column], rows_seen, columns_seen):
                    row_of[column] = row
                    return True
        return False

    for row in range(count):
        while True:
            rows_seen: set[int] = set()
            columns_seen: set[int] = set()
            if augment(row, rows_seen, columns_seen):
                break
            unseen = [c for c in range(width) if c not in columns_seen]
            step = min(row_price[r] + column_price[c] - values[r][c] for r in rows_seen for c in unseen)
            for r in rows_seen:
                row_price[r] -= step
            for c in columns_seen:
                column_price[c] += step
    columns = np.array([c for c in range(width) if row_of[c] >= 0], dtype=np.int64)
    matched = np.array([row_of[c] for c in columns], dtype=np.int64)
    pairs = (columns, matched) if transposed else (matched, columns)
    order = np.argsort(pairs[0])
    return pairs[0][order], pairs[1][order]
