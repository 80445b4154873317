"""``python -m training.datasets.world``: pictures for eyes, and the speed."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.datasets.world import render
from training.samples import Sample

_LANE = {"white": (255, 120, 0), "yellow": (0, 215, 255)}


def overlay(sample: Sample) -> npt.NDArray[np.uint8]:
    """The image with its labels drawn in."""
    image = sample.image_bgr.copy()
    tint = image.copy()
    for area in sample.drivable:
        cv2.fillPoly(tint, [np.round(area.polygon_px).astype(np.int32)], (80, 200, 80))
    image = cv2.addWeighted(image, 0.75, tint, 0.25, 0)
    for area in sample.drivable:
        cv2.polylines(image, [np.round(area.polygon_px).astype(np.int32)], True, (60, 255, 60), 1)
    for lane in sample.lanes:
        path = np.round(lane.points_px * 8).astype(np.int32)
        cv2.polylines(image, [path], False, _LANE[lane.color], 2 if lane.type == "double" else 1, cv2.LINE_AA, 3)
        if lane.type == "dashed":
            for x, y in lane.points_px[::6].tolist():
                cv2.circle(image, (round(x), round(y)), 2, (0, 0, 255), -1)
    for box in sample.boxes:
        x0, y0, x1, y1 = np.round(box.xyxy_px).astype(int).tolist()
        color = {"fully_visible": (255, 255, 0), "partly_occluded": (255, 0, 255)}.get(
            box.attributes["visible_state"], (0, 0, 255)
        )
        cv2.rectangle(image, (x0, y0), (x1, y1), color, 1)
        cv2.putText(image, box.class_name[:6], (x0, max(y0 - 2, 8)), cv2.FONT_HERSHEY_SIMPLEX, 0.3, color, 1, cv2.LINE_AA)
    for sign in sample.signs:
        x, y = np.round(sign.point_px).astype(int).tolist()
        cv2.drawMarker(image, (x, y), (255, 255, 255), cv2.MARKER_CROSS, 7, 1)
        cv2.putText(
            image,
            f"{sign.class_name[:7]} {sign.color}",
            (x + 5, y),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.3,
            (255, 255, 255),
            1,
            cv2.LINE_AA,
        )
    return image


def bench(seed: int, count: int, size_wh: tuple[int, int]) -> dict[str, object]:
    """Frames per second on one core, by its CPU time, with kernels compiled and the pictures of sprites made, as after the first
    hundreds of frames of any training.
    """
    cv2.setNumThreads(1)
    for warm in range(seed + count, seed + count + 300):
        render(warm, size_wh)
    times = []
    for i in range(seed, seed + count):
        start = time.process_time()
        render(i, size_wh)
        times.append((time.process_time() - start) * 1e3)
    return {
        "frames_per_s_core": round(1e3 / float(np.mean(times)), 1), "mean_ms": round(float(np.mean(times)), 2),
        "p50_ms": round(float(np.median(times)), 2), "p95_ms": round(float(np.percentile(times, 95)), 2),
        "frames": count, "size_wh": list(size_wh),
    }  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m training.datasets.world", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, default=16, help="number of scenes")
    parser.add_argument("--size", default="448x252", help="WIDTHxHEIGHT of a picture")
    parser.add_argument("--out", type=Path, help="folder for the pictures and contact.png")
    parser.add_argument("--overlay", action="store_true", help="draw the labels in")
    parser.add_argument("--columns", type=int, default=4, help="pictures a row of the contact sheet")
    parser.add_argument("--bench", action="store_true", help="measure frames/s per core")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    args = parser.parse_args()
    try:
        width, height = (int(v) for v in args.size.lower().split("x"))
    except ValueError:
        parser.error(f"--size: expected WIDTHxHEIGHT, got {args.size!r}")
    if args.bench:
        result = bench(args.seed, max(args.count, 100), (width, height))
        print(json.dumps(result) if args.json else "\n".join(f"{key:>18}: {value}" for key, value in result.items()))
        return
    if args.out is None:
        parser.error("--out DIR is needed to write pictures (or --bench to measure)")
    args.out.mkdir(parents=True, exist_ok=True)
    tiles = []
    for seed in range(args.seed, args.seed + args.count):
        sample = render(seed, (width, height))
        tiles.append(overlay(sample) if args.overlay else sample.image_bgr)
        cv2.imwrite(str(args.out / f"world_{seed:07d}.png"), tiles[-1])
    blank = np.zeros_like(tiles[0])
    while len(tiles) % args.columns:
        tiles.append(blank)
    rows = [np.hstack(tiles[i : i + args.columns]) for i in range(0, len(tiles), args.columns)]
    cv2.imwrite(str(args.out / "contact.png"), np.vstack(rows))
    print(json.dumps({"frames": args.count, "out": str(args.out)}) if args.json else f"wrote {args.count} pictures to {args.out}")


if __name__ == "__main__":
    main()
