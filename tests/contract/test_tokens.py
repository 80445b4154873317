"""Golden vectors of the token table, the codec, the text and the prompts: what trained models rely on.

A change that fails here makes existing bundles worthless. If that is meant, rewrite the vectors with
``python -m tests.contract.test_tokens`` and train anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from getok_drive.tokens import prompts
from getok_drive.tokens.codec import decode_points, encode_points, from_text, offsets_for, to_text
from getok_drive.tokens.elements import canonical_elements, propose_ids, refine_ids
from getok_drive.tokens.grammar import parse
from getok_drive.tokens.vocab import TABLE, TOKEN_ID, TOKENS
from getok_drive.types import Box, DrivableArea, Lane, Sign

VECTORS = Path(__file__).with_name("tokens.json")

SIZE_WH = (1280, 720)
SCENE = (
    [
        Lane([[1100, 719], [700, 400]], "solid", "yellow"),
        Lane([[640, 420], [560, 560], [400, 719]], "dashed", "white"),
    ],
    [DrivableArea([[760, 400], [1279, 700], [1279, 719], [0, 719], [0, 690], [560, 400]])],
    [Box([600, 380, 680, 450], "car"), Box([100, 300, 300, 600], "truck"), Box([900, 410, 900.5, 411], "cone")],
    [Sign([1000, 200], "speed_limit", "red"), Sign([300.25, 90.75], "traffic_light", "green")],
)


def compute() -> dict[str, Any]:
    """The vectors as the code at hand has them."""
    points = np.random.default_rng(20240607).random((200, 2)).round(6)
    points[:4] = [[0, 0], [1, 1], [0.5, 0.03125], [0.999999, 0.5]]
    cells, offsets = encode_points(points)
    elsewhere = np.clip(cells % 32 + 1, 0, 31) + cells // 32 * 32
    elements = canonical_elements(*SCENE, SIZE_WH)
    proposal, refinement = propose_ids(elements), refine_ids(elements)
    lanes, drivable, boxes, signs, _ = parse(proposal, refinement, size_wh=SIZE_WH)
    return {
        "table": {
            "count": len(TOKENS),
            "spatial_count": TABLE.spatial_count,
            "sha256": hashlib.sha256("\n".join(TOKENS).encode()).hexdigest(),
            "some": {text: TOKEN_ID[text] for text in ("<grid_1_0>", "<OFF_-1_-1>", "<DELETE>", "<seg>", "<lane>", "<solid>")},
        },
        "codec": {
            "points_norm": points.tolist(),
            "cells": cells.tolist(),
            "offsets": offsets.tolist(),
            "decoded_norm": decode_points(cells, offsets).tolist(),
            "cells_beside": elsewhere.tolist(),
            "offsets_beside": offsets_for(elsewhere, points).tolist(),
        },
        "scene": {
            "text": [*to_text(proposal).splitlines(), to_text(refinement)],
            "lanes": [lane.points_px.tolist() for lane in lanes],
            "drivable": [area.polygon_px.tolist() for area in drivable],
            "boxes": [box.xyxy_px.tolist() for box in boxes],
            "signs": [sign.point_px.tolist() for sign in signs],
        },
        "prompts": {
            "propose": list(prompts.propose_segments()),
            "refine": prompts.refine_segment(),
            "classify": {name: list(prompts.classify_segments(name, [33])) for name in prompts.CLASSIFY_PROMPTS},
            "sha256": prompts.prompt_hash(),
        },
    }


@pytest.mark.parametrize("part", ["table", "codec", "scene", "prompts"])
def test_golden_vectors(part):
    assert compute()[part] == json.loads(VECTORS.read_text())[part]


def test_golden_text_decodes_without_the_encoder():
    """The committed text alone gives the committed geometry: old texts stay readable."""
    scene = json.loads(VECTORS.read_text())["scene"]
    *proposal, refinement = scene["text"]
    lanes, drivable, boxes, signs, report = parse(from_text("".join(proposal)), from_text(refinement), size_wh=SIZE_WH)
    assert report.issues == {}
    assert [lane.points_px.tolist() for lane in lanes] == scene["lanes"]
    assert [area.polygon_px.tolist() for area in drivable] == scene["drivable"]
    assert [box.xyxy_px.tolist() for box in boxes] == scene["boxes"]
    assert [sign.point_px.tolist() for sign in signs] == scene["signs"]


def test_golden_scene_is_where_it_was_drawn():
    """The vectors themselves are right: within half a finest step of the scene (boxes nearest first, signs left to right)."""
    scene = json.loads(VECTORS.read_text())["scene"]
    half = np.array(SIZE_WH) / 512
    truck, car = np.array(scene["boxes"][:2]).reshape(2, 2, 2)
    assert (np.abs(truck - [[100, 300], [300, 600]]) <= half).all()
    assert (np.abs(car - [[600, 380], [680, 450]]) <= half).all()
    assert (np.abs(np.array(scene["signs"]) - [[300.25, 90.75], [1000, 200]]) <= half).all()
    assert (np.abs(np.array(scene["lanes"][0]) - [[400, 719], [560, 560], [640, 420]]) <= half).all()


if __name__ == "__main__":
    lines = (f"{json.dumps(part)}: {json.dumps(value)}" for part, value in compute().items())
    VECTORS.write_text("{" + ",\n".join(lines) + "}\n")
