"""Settings on the command line."""

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from getok_drive.errors import ConfigError
from training import grpo
from training.presets import PRESETS, override


def test_settings_that_hold_together_only_may_come_in_any_order():
    """``accumulate`` must divide ``batch_size``, ``minibatches`` the prompts; on the way there it need not."""
    for settings in (["batch_size=6", "accumulate=3"], ["accumulate=3", "batch_size=6"]):
        assert override(PRESETS["nano"], settings).accumulate == 3
    with pytest.raises(ConfigError, match="accumulate=4 must divide batch_size=6"):
        override(PRESETS["nano"], ["batch_size=6"])
    for settings in (["prompts=2", "prompts_per_pass=2", "minibatches=1"], ["minibatches=1", "prompts_per_pass=2", "prompts=2"]):
        assert override(grpo.PRESETS["nano"], settings).prompts == 2


def test_parts_of_settings_are_reached_by_their_path_and_the_last_word_counts():
    config = override(PRESETS["nano"], ["noise.slip=0.5", "noise.jitter=0", "recipe.least_box_height=0.1", "noise.slip=0.25"])
    assert (config.noise.slip, config.noise.jitter, config.noise.shift) == (0.25, 0.0, PRESETS["nano"].noise.shift)
    assert config.recipe.least_box_height == 0.1


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("noise.slap=1", "unknown setting 'noise.slap'; known here: jitter"),
        ("stepps=1", "unknown setting 'stepps'; known here: size"),
        ("seed.x=1", "'seed.x': seed has no parts"),
        ("seed=x y", "seed='x y': not a Python literal"),
        ("noise.slip=(1,)", r"noise.slip=\(1,\): expected float, got tuple"),
        ("seed", "'seed': expected key=value"),
    ],
)
def test_a_wrong_setting_is_named(setting, told):
    with pytest.raises(ConfigError, match=told):
        override(PRESETS["nano"], [setting])
