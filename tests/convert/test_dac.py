"""DAC of transformers and of descript-audio-codec: codes to the last, sound, the way back, use."""

import fractions
import json
import re
from typing import Any

import numpy as np
import pytest
from goldens import load
from reference import ROOT

import ssl_audio
from ssl_audio.convert import command, dac, export, files, from_state_dict, named
from ssl_audio.storage import exported

GOLDEN = ROOT / "tests/convert/golden"  # make_dac.py wrote them
NAMES = ("dac", "dac_descript")


@pytest.fixture(scope="module", params=NAMES)
def both(request):
    golden = load(GOLDEN / f"{request.param}.npz")
    return golden, from_state_dict("dac", golden.state, **golden.options)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Return what transformers made, and the codec of its folder."""
    golden, place = load(GOLDEN / "dac.npz"), tmp_path_factory.mktemp("dac")
    exported.write_arrays(place / "model.safetensors", golden.state, {"format": "pt"})
    (place / "config.json").write_text(json.dumps(golden.options))
    hears = dict(feature_size=1, hop_length=6, padding_value=0.0, sampling_rate=8000)
    hears |= dict(feature_extractor_type="DacFeatureExtractor", padding_side="right")
    (place / "preprocessor_config.json").write_text(json.dumps(hears))
    command.main(["--from", "dac", "--checkpoint", str(place), "--out", str(place / "ours")])
    return golden, ssl_audio.load(place / "ours")


def test_codes_are_equal_and_sound_is_near(both):
    golden, model = both
    found = model.forward(**golden.inputs)
    for name, want in golden.outputs.items():
        if name in found:  # the original cuts sound to the length of its input
            got = found[name][..., : want.shape[-1]]
            far = np.abs(got - want).max()
            assert got.shape == want.shape and far <= (0 if "codes" in name else 1e-5), (name, far)
    assert len(np.unique(golden.outputs["audio_codes"])) > 10
    golden.check_same_bits(named.state_dict("dac", model.params, model.config))


def test_a_folder_encodes_and_decodes_with_any_number_of_books(codec):
    golden, model = codec
    sound, want = golden.inputs["input_values"][0, 0], golden.outputs
    assert model.hop == 6 and model.books == 3 and model.rate == 8000
    np.testing.assert_allclose(model.kbps, [16 / 3, 32 / 3, 16])  # 4 bits of each book, 8000 / 6 Hz
    codes = model.encode(sound, 8000)
    assert np.array_equal(codes.chunks[0].T, want["audio_codes"][0])
    heard = model.decode(codes)
    assert heard.shape == (200,)
    np.testing.assert_allclose(heard, want["audio_values"][0, :200], atol=1e-5)
    two = model.encode(sound, 8000, kbps=11)
    assert two.chunks[0].shape == (34, 2)
    np.testing.assert_allclose(model.decode(two), want["two_books"][0, :200], atol=1e-5)


def test_what_odd_strides_leave_out_is_silence(codec):
    golden, model = codec
    made = golden.outputs["audio_values"].shape[1]
    assert made == 202 < 34 * model.hop  # the stride of 3 loses one value, that of 2 makes it two
    heard = model.decode(golden.outputs["audio_codes"][0].T)
    assert heard.shape == (204,) and not heard[made:].any() and heard[made - 1] != 0


def test_pieces_are_refused(codec):
    with pytest.raises(ValueError, match="causal=False: only a causal codec"):
        codec[1].stream()


def test_what_is_quantised_is_an_encoders_features(codec):
    _, model = codec
    assert model.encoder.embed(np.sin(np.arange(600) / 9.0), 8000).shape == (16,)


def test_the_way_back_says_what_the_names_are_of(tmp_path, both):
    golden, model = both
    exported.write(tmp_path / "ours", model.params, model.config, unused=model.unused)
    there = ["--checkpoint", str(tmp_path / "ours"), "--out", str(tmp_path / "back")]
    export.main([*there, "--to", "dac"])
    state, options = files.read(tmp_path / "back/dac")
    golden.check_same_bits(state)
    given = golden.options
    assert options and options.keys() <= given.keys()
    assert all(given[n] in (v, None) for n, v in options.items())
    again = from_state_dict("dac", state, **options)
    assert json.dumps(again.config) == json.dumps(model.config)


def test_a_codec_trained_here_has_plain_weights_in_transformers():
    golden = load(GOLDEN / "dac_descript.npz")
    model = from_state_dict("dac", golden.state, **golden.options)
    trained = {name: part for name, part in model.config.items() if name != "reference"}
    state = named.state_dict("dac", model.params, trained)
    assert {n for n in state if "weight_" in n or "original" in n} == set()
    assert state["encoder.block.0.res_unit2.snake1.alpha"].shape == (1, 4, 1)
    again = from_state_dict("dac", state, sampling_rate=8000)
    a, b = (some.forward(**golden.inputs) for some in (model, again))
    assert np.array_equal(a["audio_codes"], b["audio_codes"])
    np.testing.assert_allclose(a["audio_values"], b["audio_values"], atol=1e-5)
    with pytest.raises(ValueError, match="tokenizer.width is 10, wanted 16"):
        dac.reference_config(trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(sampling_rate=None), "give the option sampling_rate"),
        (dict(n_codebooks=4), "option n_codebooks=4: the state dict says 3"),
        (dict(downsampling_ratios=[3, 2]), "the state dict says .2, 3."),
        (dict(upsampling_ratios=[2, 3]), "the state dict says .3, 2."),
        (dict(preprocessor=dict(feature_size=2)), "option feature_size=2"),
        (dict(preprocessor=dict(normalise_db=-16)), "normalise_db=-16: a setting"),
    ],
)
def test_options_are_held_against_the_arrays(change, message):
    golden = load(GOLDEN / "dac.npz")
    with pytest.raises(ValueError, match=message):
        from_state_dict("dac", golden.state, **golden.options | change)


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("encoder.conv1.weight", 3),
        ("encoder.block.1.conv1.weight", 3),
        ("encoder.conv2.weight", 3),
        ("decoder.conv1.weight", 3),
        ("decoder.block.0.conv_t1.weight", 3),
        ("quantizer.quantizers.2.codebook.weight", 2),
    ],
)
def test_arrays_of_other_axes_are_named(name, axes):
    golden = load(GOLDEN / "dac.npz")
    array = golden.state[name]
    for broken in (array.ravel(), array.ravel()[0], array[..., :0], array[None]):
        message = re.escape(f"{name} {broken.shape}; wanted {axes} axes, none of them empty")
        with pytest.raises(ValueError, match=message):
            from_state_dict("dac", golden.state | {name: broken}, sampling_rate=8000)
    if "block" in name:  # half a tap of stride
        with pytest.raises(
            ValueError, match=f"{name} .*wanted an even last axis: twice the stride"
        ):
            from_state_dict("dac", golden.state | {name: array[..., :1]}, sampling_rate=8000)


def test_a_codec_is_written_without_its_discriminator(both, caplog):
    _, model = both
    judge = {"part_0": {"last": {"kernel": np.ones((1, 2, 3), np.float32)}}}
    state = named.state_dict("dac", model.params | dict(discriminator=judge), model.config)
    assert state.keys() == named.state_dict("dac", model.params, model.config).keys()
    assert caplog.text.count("dac: left out, no published codec has it: discriminator") == 1
    with pytest.raises(ValueError, match="dac has no names for all parameters .*: other"):
        named.state_dict("dac", model.params | dict(other=judge), model.config)


@pytest.mark.parametrize("name", ["quantizer_dropout", "commitment_loss_weight"])
def test_options_that_are_no_numbers_are_named(name):
    golden = load(GOLDEN / "dac.npz")
    values: list[Any] = ["x", -1, float("nan"), True]
    for value in values:
        with pytest.raises(ValueError, match=f"option {name}={value!r}: wanted a number"):
            from_state_dict("dac", golden.state, **golden.options | {name: value})


def test_no_dropout_is_the_originals_default():
    golden = load(GOLDEN / "dac_descript.npz")
    model = from_state_dict("dac", golden.state, **golden.options | dict(quantizer_dropout=False))
    assert model.config["objective"]["quantizer"]["drop"] == 0


def test_books_of_several_shapes_are_refused():
    golden = load(GOLDEN / "dac.npz")
    name = "quantizer.quantizers.1.codebook.weight"
    state = golden.state | {name: golden.state[name][:8]}
    with pytest.raises(ValueError, match=r"\(8, 4\), \(16, 4\): only books of one shape"):
        from_state_dict("dac", state, **golden.options)
    with pytest.raises(ValueError, match=r"missing keys: encoder.conv1"):
        from_state_dict("dac", {"encoder.block.0.x": np.zeros(1)}, sampling_rate=8000)


def test_a_file_of_audiotools_brings_its_options(tmp_path):
    torch = pytest.importorskip("torch")
    golden = load(GOLDEN / "dac_descript.npz")
    tensors = {name: torch.from_numpy(value) for name, value in golden.state.items()}
    kwargs = golden.options | dict(quantizer_dropout=False)
    torch.save(dict(state_dict=tensors, metadata=dict(kwargs=kwargs)), tmp_path / "weights.pth")
    state, options = files.read(tmp_path / "weights.pth")
    model = from_state_dict("dac", state, **options)
    assert model.config["objective"]["frontend"]["rate"] == 8000
    golden.check_same_bits(named.state_dict("dac", model.params, model.config))


def test_a_file_that_calls_for_more_than_tensors_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    rate = fractions.Fraction(8000)
    kept = dict(state_dict={"a": torch.zeros(2)}, metadata=dict(kwargs=dict(sampling_rate=rate)))
    path = tmp_path / "weights.pth"
    torch.save(kept, path)
    message = (
        r"weights\.pth: got a pickle that calls for fractions\.Fraction, wanted a file of weights: "
    )
    with pytest.raises(ValueError, match=message) as error:
        command.main(["--from", "dac", "--checkpoint", str(path), "--out", str(tmp_path / "ours")])
    assert "weights_only" not in str(error.value) and not (tmp_path / "ours").exists()
