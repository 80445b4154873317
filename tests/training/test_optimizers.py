"""The learning rate's course."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from training.optimizers import learning_rate_factor
from training.presets import PRESETS, Stage

CONFIG = replace(PRESETS["tiny"], stages=(Stage(60, (112, 56)), Stage(40, (112, 56))), warmup_steps=10, final_lr_ratio=0.1)


def test_one_cosine_after_the_warm_up():
    course = [learning_rate_factor(step, CONFIG) for step in range(101)]
    assert course[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert course[10] == pytest.approx(1.0)
    assert course[55] == pytest.approx(0.55)
    assert course[100] == pytest.approx(0.1)
    assert course[10:] == sorted(course[10:], reverse=True)


def test_a_plateau_can_be_prolonged():
    config = replace(CONFIG, decay_steps=20)
    longer = replace(config, stages=(*config.stages, Stage(50, (112, 56))))
    for step in range(81):
        assert learning_rate_factor(step, config) == learning_rate_factor(step, longer)
    assert learning_rate_factor(80, config) == pytest.approx(1.0)
    assert learning_rate_factor(90, config) == pytest.approx(0.55)
    assert learning_rate_factor(100, config) == learning_rate_factor(150, longer) == pytest.approx(0.1)
