# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from edge_moe import EdgeMoEError
from edge_moe.config import ModelConfig, Preset, load_preset, preset_names
from edge_moe_host.config import from_dict, to_dict


def test_every_preset_loads_and_survives_a_round_trip():
    names = preset_names()
    assert {"mini", "m3vit_tiny_cityscapes", "m3vit_small_nyud", "m3vit_small_pascal"} <= set(names)
    assert {"m3vit_base_nyud", "m3vit_base_pascal"} <= set(names)
    for name in names:
        preset = load_preset(name)
        assert from_dict(Preset, to_dict(preset)) == preset
        assert (preset.model.routing == "dense") == name.endswith("_dense")


def test_tiny_cityscapes_is_the_published_model():
    cfg = load_preset("m3vit_tiny_cityscapes").model
    assert (cfg.embed_dim, cfg.num_heads, cfg.depth, cfg.num_tokens) == (192, 3, 12, 129)
    assert (cfg.num_experts, cfg.top_k, cfg.expert_ratio, cfg.moe_blocks) == (16, 2, 2, (1, 3, 5, 7, 9, 11))
    assert dict(cfg.tasks) == {"semseg": 7, "depth": 1}


def test_hash_depends_on_content_only():
    base = load_preset("mini").model
    assert load_preset("mini", ["train.lr=1.0"]).model.hash() == base.hash()
    assert load_preset("mini", ["model.depth=6"]).model.hash() != base.hash()
    assert re.fullmatch("[0-9a-f]{16}", base.hash())


def test_overrides_take_toml_values_and_bare_words():
    preset = load_preset("mini", ["model.routing=single_gate", "train.lr=0.5", "train.loss_weights.depth=2"])
    assert preset.model.routing == "single_gate"
    assert preset.train.lr == 0.5
    assert preset.train.loss_weight("depth") == 2.0
    assert preset.train.loss_weight("edge") == 50.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.foo=1", "unknown key 'model.foo'"),
        ("train.foo=1", "unknown key 'train.foo'"),
        ("model.depth=deep", "model.depth = 'deep' has the wrong type: it must be int"),
        ("model.depth=true", "model.depth = True has the wrong type"),
        ("train.lr=true", "train.lr = True has the wrong type: it must be float"),
        (f"model.depth={60 * 'd'}", f"model.depth = '{59 * 'd'}... has the wrong type"),
        ("model.depth=0", "model.depth = 0 is not allowed"),
        ("model.embed_dim=65", "multiple of num_heads 2"),
        ("model.image_size=[100, 256]", "multiples of patch_size 16"),
        ("model.image_size=[128]", "a list of 2 values"),
        ("model.top_k=9", "between 1 and num_experts 8"),
        ("model.routing=best", "model.routing = 'best' is not allowed: it is one of"),
        ("model.tasks.colour=3", "'colour' is not allowed: the known tasks are"),
        ("model.tasks.depth=2", "depth has 1 channel"),
        ("model.tasks.semseg=1", "at least 2 classes"),
        ("train.lr=0", "train.lr = 0.0 is not allowed"),
        ("train.lr=nan", "must be finite"),
        ("train.seed=-1", "train.seed = -1 is not allowed: it must be within [0, 2^63)"),
        ("train.seed=9223372036854775808", "must be within [0, 2^63)"),
        ("train.patience=-1", "train.patience = -1 is not allowed"),
        ("train.ema_decay=1.0", "must be within [0, 1)"),
        ("train.loss_weights.colour=1", "'colour' is not allowed"),
        ("train.scale_range=[2.0, 1.0]", "0 < low <= high"),
        ("depth=1", "not of the form section.key=value"),
        ("model.depth", "not of the form section.key=value"),
        ("model.depth.x=1", "is a value, not a section"),
    ],
)
def test_bad_values_name_field_value_and_rule(override, message):
    with pytest.raises(EdgeMoEError, match=re.escape(message)) as error:
        load_preset("mini", [override])
    assert "\n" not in str(error.value)


def test_unknown_preset_lists_the_known_ones(tmp_path):
    with pytest.raises(EdgeMoEError, match=r"unknown preset 'maxi': known are .*mini"):
        load_preset("maxi")
    with pytest.raises(EdgeMoEError, match=r"cannot read '.*nowhere\.toml': No such file"):
        load_preset(str(tmp_path / "nowhere.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("[model\n")
    with pytest.raises(EdgeMoEError, match="not valid TOML"):
        load_preset(str(broken))


def test_missing_key_and_missing_section():
    with pytest.raises(EdgeMoEError, match=r"key 'model.depth' is missing"):
        from_dict(Preset, {"name": "x", "model": {"image_size": [16, 16], "tasks": {"depth": 1},
                                                  "embed_dim": 8, "num_heads": 1}})  # fmt: skip
    with pytest.raises(EdgeMoEError, match="key 'model' is missing"):
        from_dict(Preset, {"name": "x"})


def test_dense_twin_needs_equal_cost():
    cfg = load_preset("mini", ["model.expert_ratio=1"]).model
    with pytest.raises(EdgeMoEError, match=r"equals top_k \* expert_ratio = 2"):
        cfg.dense_twin()
    assert isinstance(load_preset("mini").model.dense_twin(), ModelConfig)
