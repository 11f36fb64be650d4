"""The second stage of HTCL: what it keeps near to is what the first stage's tower hears, not a part of it."""

import json

from ssl_audio import config, config_files


def test_the_first_stages_tower_hears_whole_spectrograms(tmp_path):
    first = config.plain(config_files.load("htcl:runlocal"))
    (tmp_path / "config.json").write_text(json.dumps(first))
    made = config_files.load(f"htcl:runlocal,stage=preference,model={tmp_path},keep=0.5")
    towers = made.objective.towers
    assert towers.audio.spec_augment.kind == "augment:SpecAugment"
    before = towers.before
    assert (before.spec_augment, before.frozen, before.entry) == (None, True, "audio")
    assert before.encoder == towers.audio.encoder and made.optim.rates["^before/"] == 0
    assert ("audio", "before", 0.5) in [tuple(edge) for edge in made.objective.edges]
    assert set(made.warm_start) == {"semantic", "before"}
