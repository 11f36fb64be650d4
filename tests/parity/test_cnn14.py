"""Cnn14 of PANNs through the converter, against the outputs of its code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import load
from published import CONFIGS
from published import load as load_config
from reference import golden_files

import ssl_audio
from ssl_audio.config import build
from ssl_audio.convert import cnn14, command, export, from_state_dict
from ssl_audio.storage import checkpoint

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("cnn14_*.npz"))
def test_outputs_and_the_way_back(path):
    golden = load(path)
    model = from_state_dict("cnn14", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    power = golden.outputs["spectrogram_power"].max()
    assert worst.pop("spectrogram_power") <= 1e-5 * power, worst
    assert worst.pop("logmel_db") <= 1e-3, worst
    assert worst.pop("after_conv_block1") <= 1e-4, worst
    assert worst.pop("embedding", 0) <= 1e-4, worst
    assert max(worst.values()) <= 1e-5, worst
    golden.check_same_bits(cnn14.to_state_dict(model.params, model.config) | model.unused)


@pytest.mark.parametrize("path", golden_files("cnn14_tag.npz"))
def test_options_that_contradict_the_arrays_are_refused(path):
    golden = load(path)
    for wrong, message in (
        (dict(fmax=3000), "not the mel bank of 32 bands from 50.0 to 3000.0 Hz at 8000 Hz"),
        (dict(window_size=512), "window_size=512: the state dict says 256"),
        (dict(kind="Cnn10"), "kind='Cnn10': only 'Cnn14' or 'Cnn14_DecisionLevelMax'"),
        (dict(top_db=80.0), "top_db=80.0: only None"),
    ):
        with pytest.raises(ValueError, match=message):
            from_state_dict("cnn14", golden.state, **golden.options | wrong)
    short = {n: v for n, v in golden.state.items() if not n.startswith("conv_block6")}
    with pytest.raises(ValueError, match="blocks conv_block1, .*conv_block5; Cnn14 has"):
        from_state_dict("cnn14", short, **golden.options)
    bank = {n: v for n, v in golden.state.items() if "melW" not in n}
    plain = from_state_dict("cnn14", bank, **golden.options)
    found = plain.forward(**golden.inputs)["clipwise_output"]
    assert np.abs(found - golden.outputs["clipwise_output"]).max() <= 1e-5


@pytest.mark.parametrize("path", golden_files("cnn14_tag.npz"))
def test_as_a_tower_it_embeds_as_panns_and_begins_a_clap(path, tmp_path):
    golden = load(path)
    out = tmp_path / "panns"
    arguments = ["--from", "cnn14", "--checkpoint", str(path), "--out", str(out), "--check"]
    command.main([*arguments, "--option", "tagger=false"])
    encoder = ssl_audio.load(out)
    encoder.config["data"]["entries"]["audio"]["samples"] = golden.inputs["waveform"].shape[1]
    found = encoder.embed(golden.inputs["waveform"], 8000)
    assert np.abs(found - golden.outputs["embedding"]).max() <= 1e-4
    (clap,) = [file for file in CONFIGS if file.stem == "clap"]
    made = load_config(clap, f"encoder={out}")
    assert (made.data.rate, made.data.entries.audio.samples) == (8000, 80_000)
    objective = build(made.objective, "objectives")
    batch = {"audio": np.zeros((1, 12_000), "f4"), "length": np.full(1, 12_000, "i4")}
    tower = objective.towers["audio"]
    shapes = jax.eval_shape(lambda k, b: tower.init(k, b, "audio"), jax.random.key(0), batch)
    fresh = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    (start,) = made.warm_start.values()
    warm = checkpoint.warm_start({"audio": fresh}, **start)
    saved = checkpoint.load_params(out)[0]["audio"]
    assert saved.keys() == fresh.keys() - {"projector"}
    assert all(
        jax.tree.all(jax.tree.map(np.array_equal, warm["audio"][part], saved[part]))
        for part in saved
    )


@pytest.mark.parametrize("path", golden_files("cnn14_tag.npz"))
def test_as_a_tagger_it_embeds_its_last_map_and_is_exported(path, tmp_path, capsys):
    out, back = str(tmp_path / "panns"), str(tmp_path / "back")
    command.main(["--from", "cnn14", "--checkpoint", str(path), "--out", out, "--check"])
    assert "are the same bits after the way there and back" in capsys.readouterr().out
    assert ssl_audio.load(out).embed(np.sin(np.arange(9000) / 5.0), 8000).shape == (16,)
    export.main(["--checkpoint", out, "--out", back, "--to", "cnn14"])
    with np.load(tmp_path / "back/state_dict.npz") as file:
        load(path).check_same_bits(dict(file))
