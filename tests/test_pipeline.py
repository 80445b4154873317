"""The whole flow: a scene goes through tokens, a scripted model and the grammar, and comes back in pixels."""

from dataclasses import replace

import numpy as np
import pytest

from getok_drive.bundle import Bundle
from getok_drive.errors import ConfigError
from getok_drive.pipeline import Perceiver
from getok_drive.runtime.decoding import Budget
from getok_drive.runtime.fake import FakeBackend
from getok_drive.tokens.elements import canonical_elements, propose_ids, refine_ids
from getok_drive.types import Box, DrivableArea, Frame, Lane, Sign

SIZE_WH = (640, 480)
LANES = (Lane([[100, 470], [160, 300], [250, 200]], "dashed", "yellow"), Lane([[600, 470], [420, 250]], "solid", "white"))
DRIVABLE = (DrivableArea([[20, 470], [200, 220], [420, 220], [620, 470]]),)
BOXES = (Box([300, 210, 380, 300], "car"), Box([30, 200, 60, 260], "pedestrian"))
SIGNS = (Sign([500.5, 100.25], "stop", "red"),)


@pytest.fixture(scope="module")
def bundle(tiny_bundle) -> Bundle:
    return Bundle.load(tiny_bundle)


def scripted(bundle: Bundle, lanes=LANES, drivable=DRIVABLE, boxes=BOXES, signs=SIGNS, **options) -> Perceiver:
    elements = canonical_elements(lanes, drivable, boxes, signs, SIZE_WH)
    first, prompt = bundle.prompt.first_token_id, bundle.prompt
    script = [*(first + t for t in propose_ids(elements)), *prompt.refine, *(first + t for t in refine_ids(elements))]
    return Perceiver(bundle, FakeBackend(bundle.contract.model, script, confidence=25.0), **options)


def frame(**fields) -> Frame:
    return Frame(np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8), **fields)


def test_a_scene_comes_back_to_half_a_finest_step(bundle):
    scene = scripted(bundle).run(frame(stamp_ns=123, source="a.png", index=4))
    tolerance_px = max(SIZE_WH) / 512 + 1e-3
    for got, wanted in zip(sorted(scene.lanes, key=lambda e: e.type), LANES, strict=True):
        assert (got.type, got.color) == (wanted.type, wanted.color)
        np.testing.assert_allclose(got.points_px, wanted.points_px, atol=tolerance_px)
    for got, wanted in zip(sorted(scene.boxes, key=lambda e: e.class_name), BOXES, strict=True):
        assert got.class_name == wanted.class_name
        np.testing.assert_allclose(got.xyxy_px, wanted.xyxy_px, atol=tolerance_px)
    np.testing.assert_allclose(scene.signs[0].point_px, SIGNS[0].point_px, atol=tolerance_px)
    assert (scene.signs[0].class_name, scene.signs[0].color) == ("stop", "red")
    assert len(scene.drivable) == 1
    assert scene.image_size_wh == SIZE_WH
    assert (scene.stamp_ns, scene.source, scene.index) == (123, "a.png", 4)
    assert (scene.bundle_name, scene.bundle_sha256) == (bundle.name, bundle.sha256)
    assert not scene.truncated and not scene.report.issues
    assert scene.report.elements == scene.elements == 6
    assert 0 < scene.report.passes < scene.report.tokens
    assert all(e.confidence > 0.9 for e in (*scene.lanes, *scene.drivable, *scene.boxes, *scene.signs))


def test_boxes_that_are_written_twice_are_counted_and_dropped(bundle):
    twice = (*BOXES, Box([300, 225, 380, 315], "car"))
    scene = scripted(bundle, boxes=twice).run(frame())
    assert sorted(box.class_name for box in scene.boxes) == ["car", "pedestrian"]
    assert (scene.report.repeated, scene.report.elements) == (1, scene.elements)
    assert scene.to_json()["decode_report"]["repeated"] == 1 and not scene.report.issues


def test_what_the_model_is_not_sure_of_is_left_out_as_the_bundle_or_the_caller_says(bundle):
    least = {**bundle.contract.least_confidence, "box": 1.0}  # the scripted model is sure, though not quite
    strict = replace(bundle, contract=replace(bundle.contract, least_confidence=least))
    scene = scripted(strict).run(frame())
    assert (len(scene.boxes), len(scene.lanes), scene.report.unsure, scene.report.elements) == (0, 2, 2, 4)
    assert len(scripted(strict, min_confidence=0.5).run(frame()).boxes) == 2
    assert len(scripted(strict).run(frame(), min_confidence=0.0).boxes) == 2
    assert scripted(bundle).run(frame(), min_confidence=1.0).elements == 0
    for unlikely in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"min_confidence: expected a number in 0\.\.1"):
            scripted(bundle, min_confidence=unlikely)
        with pytest.raises(ConfigError, match="min_confidence"):
            scripted(bundle).run(frame(), min_confidence=unlikely)


def test_timings_add_up(bundle):
    timings = scripted(bundle).run(frame()).timings
    stages = timings.preprocess_ms + timings.vision_ms + timings.prefill_ms + timings.decode_ms + timings.parse_ms
    assert timings.total_ms == pytest.approx(stages)
    assert min(timings.preprocess_ms, timings.decode_ms, timings.parse_ms) > 0


def test_without_refinement_points_are_cell_centres(bundle):
    scene = scripted(bundle, refine=False).run(frame())
    cells = (scene.lanes[0].points_px + 0.5) / np.array(SIZE_WH) * 32 - 0.5
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-4)


def test_fewer_rounds_cost_fewer_passes_and_stop_short(bundle):
    whole, one = (scripted(bundle, rounds=rounds).run(frame()) for rounds in (None, 1))
    points = sum(len(lane.points_px) for lane in whole.lanes) + len(whole.drivable[0].polygon_px) + 2 * len(BOXES) + len(SIGNS)
    assert one.report.tokens == whole.report.tokens
    assert one.report.passes == whole.report.passes - 2 * points
    left_px = np.abs(one.signs[0].point_px - SIGNS[0].point_px) / np.array(SIZE_WH)
    assert 1 / 512 < left_px.max() <= 1 / 32 / 4 + 1e-4  # half a cell's half is left
    with pytest.raises(ConfigError, match=r"has 3 offset rounds, so 0\.\.3, not 4"):
        scripted(bundle, rounds=4)


def test_one_frame_may_want_less(bundle):
    perceiver = scripted(bundle, lanes=(), drivable=(), signs=())
    assert perceiver.run(frame(), kinds=("lane", "sign")).boxes == ()
    cut = perceiver.run(frame(), budget=Budget(tokens=6))
    assert cut.truncated and len(cut.boxes) == 1
    assert len(perceiver.run(frame()).boxes) == 2  # the budget was for that frame only


def test_calibration_is_applied(bundle):
    from dataclasses import replace

    from getok_drive.bundle import CalibrationSpec

    contract = replace(bundle.contract, calibration={"sign": CalibrationSpec(1.0, -4.0)})
    plain, calibrated = (scripted(b).run(frame()) for b in (bundle, replace(bundle, contract=contract)))
    assert calibrated.boxes[0].confidence == plain.boxes[0].confidence
    assert calibrated.signs[0].confidence < plain.signs[0].confidence


@pytest.mark.parametrize("size_wh", [(1, 1), (3000, 20), (31, 700)])
def test_any_image_size_runs_on_the_real_model(bundle, size_wh):
    perceiver = Perceiver(bundle)
    image = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    scene = perceiver.run(Frame(image))
    assert not scene.report.issues
    for lane in scene.lanes:
        assert (lane.points_px >= -0.5).all() and (lane.points_px <= np.array(size_wh) - 0.5).all()


def test_the_same_frame_gives_the_same_scene(bundle):
    perceiver = Perceiver(bundle)
    perceiver.warm_up()
    image = np.random.default_rng(1).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    first, second = (perceiver.run(Frame(image)).to_json() for _ in range(2))
    first.pop("timings_ms"), second.pop("timings_ms")
    assert first == second
