"""Shapes of labels."""

from __future__ import annotations

from training.datasets.world.kernels import compiled


@compiled
def simple(points):  # type: ignore[no-untyped-def]
    """Whether no two edges of the closed polygon ``(N, 2)`` of integers touch, apart from neighbours at their common vertex."""
    count = len(points)
    for i in range(count):
        for j in range(i + 2, count - (i == 0)):
            if astride(points, i, j) and astride(points, j, i) and overlap(points, i, j, 0) and overlap(points, i, j, 1):
                return False
    return True


@compiled
def astride(points, i, j):  # type: ignore[no-untyped-def]
    """Whether edge ``j`` starts and ends on different sides of the line through edge ``i``, or on it."""
    return side(points, i, j) * side(points, i, (j + 1) % len(points)) <= 0


@compiled
def side(points, i, j):  # type: ignore[no-untyped-def]
    """On which side of edge ``i`` vertex ``j`` lies: -1, 0 or 1."""
    k = (i + 1) % len(points)
    x, y = points[i, 0], points[i, 1]
    cross = (points[k, 0] - x) * (points[j, 1] - y) - (points[k, 1] - y) * (points[j, 0] - x)
    return (cross > 0) - (cross < 0)


@compiled
def overlap(points, i, j, axis):  # type: ignore[no-untyped-def]
    """Whether the edges ``i`` and ``j`` share a stretch of one axis: collinear edges that do not are no crossing."""
    a, b = points[i, axis], points[(i + 1) % len(points), axis]
    c, d = points[j, axis], points[(j + 1) % len(points), axis]
    return min(a, b) <= max(c, d) and min(c, d) <= max(a, b)
