"""EnCodec of transformers, through the converter: codes to the last, sound to 1e-4."""

import jax
import numpy as np
import pytest
from goldens import load
from reference import golden_files

import ssl_audio
from ssl_audio.convert import command, encodec, from_state_dict

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", golden_files("encodec*.npz"))
def test_codes_are_equal_and_sound_is_near(path):
    golden = load(path)
    model = from_state_dict("encodec", golden.state, **golden.options)
    found = model.forward(**golden.inputs)
    worst = golden.differences(found)
    for name, value in worst.items():
        exact = "codes" in name or "pad_length" in name
        assert value <= (0 if exact else 1e-5 if "scales" in name else 1e-4), (name, value)
    back = encodec.to_state_dict(model.params, model.config) | model.unused
    golden.check_same_bits(back)


def _audiocraft(state, ups):
    """Return a state dict of transformers under the names of audiocraft, written down by hand."""
    found = {}
    for name, value in state.items():
        side, _, number, *rest = name.split(".")
        if side == "quantizer":
            name = f"quantizer.vq.layers.{number}._codebook.{rest[-1]}"
        else:
            inner = (
                "convtr" if side == "decoder" and number in ups and rest[0] == "conv" else "conv"
            )
            end = ".".join(rest)
            end = end.replace("conv.", f"{inner}.{inner}.").replace("norm.", "conv.norm.")
            end = end.replace("parametrizations.weight.original0", "weight_g")
            name = f"{side}.model.{number}.{end.replace('parametrizations.weight.original1', 'weight_v')}"
        found[name] = value
    return found


def test_names_of_audiocraft():
    golden = load(golden_files("encodec_audiogen*.npz")[0].values[0])
    state = _audiocraft(golden.state, {"3", "6", "9"})
    model = from_state_dict("encodec", state, **golden.options)
    plain = from_state_dict("encodec", golden.state, **golden.options)
    equal = jax.tree.map(np.array_equal, model.params, plain.params)
    assert all(jax.tree.leaves(equal)) and len(jax.tree.leaves(equal)) > 50
    back = encodec.to_state_dict(model.params, model.config)
    known = {n: v for n, v in state.items() if n in back}
    assert len(back) == len(state) - len(model.unused)
    assert all(np.array_equal(back[name], value) for name, value in known.items()) and known


@pytest.fixture(scope="module", params=[p.values[0] for p in golden_files("encodec*.npz")])
def folder(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("codec") / "folder"
    arguments = ["--from", "encodec", "--checkpoint", str(request.param), "--out", str(out)]
    command.main(arguments)
    return load(request.param), ssl_audio.load(out)


def test_a_folder_encodes_and_decodes_as_asked(folder):
    golden, codec = folder
    sound = golden.inputs["input_values"][1].T
    if "padding_mask" in golden.inputs:
        sound = sound[golden.inputs["padding_mask"][1] > 0]
    sound = sound / (1.01 * np.abs(sound).max())
    given = sound if codec.channels > 1 else sound[:, 0]
    codes = codec.encode(given, codec.rate, books=2)
    assert {c.shape[1] for c in codes.chunks} == {2} and codes.samples == len(sound)
    assert codec.decode(codes).shape == given.shape
    assert codec.decode(codes, samples=100).shape == (100, *given.shape[1:])
    assert codec.encode(given, codec.rate, kbps=codec.kbps[1]).chunks[0].shape[1] == 2
    whole = codec.encode(given, codec.rate)
    assert all(np.array_equal(a, b[:, :2]) for a, b in zip(codes.chunks, whole.chunks, strict=True))
    for wrong, message in (
        (dict(books=0), "books: got 0, wanted 1 to 4"),
        (dict(kbps=1e-9), "kbps: got 1e-09, wanted"),
        (dict(kbps=1.2, books=1), "wanted one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.encode(given, codec.rate, **wrong)
    for codes, message in (
        (np.zeros((3, 5), int), r"got shape \(3, 5\), wanted \[N, Q\] with Q from 1 to 4"),
        (np.full((3, 2), 64), "wanted whole numbers from 0 to 63"),
        (np.zeros((3, 2)), "got float64"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.decode(codes)


def test_pieces_give_what_the_whole_gives(folder):
    golden, codec = folder
    if not codec.objective.tokenizer.causal:
        with pytest.raises(ValueError, match="only a causal codec"):
            codec.stream()
        return
    sound = golden.inputs["input_values"][0, 0]
    sound = sound[: len(sound) - 5] / (1.01 * np.abs(sound).max())
    whole = codec.encode(sound, codec.rate)
    stream, codes, heard = codec.stream(), [], []
    ends = [0, 50, 250, 251, 500, 740, len(sound)]
    for begin, end in zip(ends, ends[1:], strict=False):
        found = stream.encode(sound[begin:end], last=end == len(sound))
        codes.append(found)
        heard.append(stream.decode(found, last=end == len(sound)))
    assert np.array_equal(np.concatenate(codes), whole.chunks[0]) and len(codes[2]) == 0
    want = codec.decode(whole, samples=len(whole.chunks[0]) * codec.hop)
    np.testing.assert_allclose(np.concatenate(heard), want, atol=2e-6)
    again = np.concatenate([stream.encode(sound[:500]), stream.encode(sound[500:], last=True)])
    assert np.array_equal(again, whole.chunks[0])
