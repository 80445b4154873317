"""The pixel tensor: the same as transformers' own processor gives, and a way back that is exact."""

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from getok_drive.errors import ConfigError, InputError
from getok_drive.preprocess import CLIP_MEAN_RGB, CLIP_STD_RGB, ImageTransform, Preprocessor, resize


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("temporal", [1, 2])
@pytest.mark.parametrize(
    ("mean", "std"), [(CLIP_MEAN_RGB, CLIP_STD_RGB), ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))], ids=["clip", "other"]
)
def test_equals_the_processor_of_transformers(temporal, mean, std):
    pytest.importorskip("PIL", reason="transformers' slow image processor needs Pillow")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    image_bgr = noise(168, 112)
    processor = Qwen2VLImageProcessorPil(
        do_resize=False, temporal_patch_size=temporal, image_mean=list(mean), image_std=list(std)
    )
    theirs = processor(images=[image_bgr[:, :, ::-1].copy()], return_tensors="np")
    ours = Preprocessor((168, 112), temporal_patch_size=temporal, mean_rgb=mean, std_rgb=std)
    pixel_values, _ = ours(image_bgr)
    np.testing.assert_array_equal(pixel_values, theirs["pixel_values"])
    assert tuple(theirs["image_grid_thw"][0]) == (1, *ours.grid_hw)


def test_patch_order_by_hand():
    # One red pixel at x = 17, y = 30: merge block (row 1, column 0), in it patch (0, 1), in the patch (y 2, x 3).
    image = np.zeros((56, 56, 3), np.uint8)
    image[30, 17, 2] = 255
    pre = Preprocessor((56, 56), mean_rgb=(0, 0, 0), std_rgb=(1, 1, 1))
    pixel_values, _ = pre(image)
    patch, column = np.argwhere(pixel_values).squeeze()
    assert (patch, column) == (2 * 4 + 0 * 2 + 1, 0 * 196 + 2 * 14 + 3)
    assert pixel_values.max() == 1.0


def test_calls_do_not_share_their_result():
    pre = Preprocessor((56, 56))
    first, _ = pre(noise(56, 56, 1))
    kept = first.copy()
    pre(noise(56, 56, 2))
    np.testing.assert_array_equal(first, kept)
    out = np.empty_like(first)
    assert pre(noise(56, 56, 1), out=out)[0] is out
    np.testing.assert_array_equal(out, kept)


@pytest.mark.parametrize("size_wh", [(448, 252), (1, 1), (5000, 20), (20, 3000), (449, 251)])
def test_any_source_size(size_wh):
    pixel_values, transform = Preprocessor((448, 252))(noise(*size_wh))
    assert pixel_values.shape == (18 * 32, 3 * 14 * 14)
    assert np.isfinite(pixel_values).all()
    assert transform == ImageTransform(size_wh, (448, 252))


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((56, 448, 3), np.uint8)
    stripes[:, ::8] = 255
    assert np.ptp(resize(stripes, (56, 56))) == 0
    assert np.ptp(resize(stripes, (56, 112))) == 0  # also where the other axis grows


def test_resize_keeps_positions():
    # A soft blob must stay at the same normalised place, whichever way the size goes.
    y, x = np.mgrid[:200, :300]
    blob = np.exp(-((x - 120.0) ** 2 + (y - 70.0) ** 2) / 400) * 255
    image = np.repeat(blob.astype(np.uint8)[:, :, None], 3, axis=2)
    for size_wh in [(84, 56), (448, 252), (84, 252)]:
        weights = resize(image, size_wh)[:, :, 0].astype(float)
        centre = [(weights.sum(axis=1 - axis) @ np.arange(weights.shape[axis])) / weights.sum() for axis in (1, 0)]
        moved = ImageTransform((300, 200), size_wh)
        np.testing.assert_allclose(moved.norm_to_source(moved.model_to_norm(centre)), (120, 70), atol=0.2)


@given(
    st.tuples(st.integers(1, 8000), st.integers(1, 8000)),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
)
def test_transform_round_trip(size_wh, points):
    transform = ImageTransform(size_wh, (448, 252))
    back = transform.source_to_norm(transform.norm_to_source(points))
    np.testing.assert_allclose(back, points, atol=1e-6)
    back = transform.model_to_norm(transform.norm_to_model(points))
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_half_pixel_rule():
    transform = ImageTransform((100, 50), (448, 252))
    np.testing.assert_allclose(transform.source_to_norm([[0, 0], [99, 49]]), [[0.005, 0.01], [0.995, 0.99]], rtol=1e-6)
    np.testing.assert_allclose(transform.norm_to_source([[0, 0], [1, 1]]), [[-0.5, -0.5], [99.5, 49.5]])


def test_refusals_say_what_to_do():
    with pytest.raises(ConfigError, match="448x252"):
        Preprocessor((450, 250))
    with pytest.raises(ConfigError, match="std"):
        Preprocessor((448, 252), std_rgb=(0.1, 0.0, 0.1))
    pre = Preprocessor((56, 56))
    for bad in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.float32)):
        with pytest.raises(InputError, match="BGR"):
            pre(bad)
    with pytest.raises(InputError, match="out"):
        pre(noise(56, 56), out=np.empty((3, 3), np.float32))


def test_non_contiguous_images_are_fine():
    image = noise(200, 100)
    pre = Preprocessor((56, 56))
    np.testing.assert_array_equal(pre(image[:, ::-1])[0], pre(cv2.flip(image, 1))[0])


def test_a_copy_in_another_process_works_alike():
    preprocessor = Preprocessor((112, 56), mean_rgb=(0.5, 0.4, 0.3), std_rgb=(0.2, 0.3, 0.4))
    copy = pickle.loads(pickle.dumps(preprocessor))
    rng = np.random.default_rng(0)
    for _ in range(2):
        image = rng.integers(0, 256, (90, 160, 3), np.uint8)
        np.testing.assert_array_equal(copy(image)[0], preprocessor(image)[0])
