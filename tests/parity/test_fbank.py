import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ssl_audio.frontend.fbank import Fbank, hann, mel_triangles

log_mel = jax.jit(Fbank.log_mel, static_argnums=0)
pytestmark = pytest.mark.parity


def cases(path):
    data = np.load(path)
    for name, case in json.loads(str(data["config"]))["cases"].items():
        clip = {k.removeprefix(f"{name}/"): data[k] for k in data.files if k.startswith(name)}
        audio = jnp.asarray(clip["in/waveform_int16"].astype(np.float32) / 32768)[None]
        yield case, clip, audio


def compare(got, wanted):
    """Check one clip; return how many cells are well above the floor."""
    difference = np.abs(np.asarray(got) - wanted)
    assert difference.max() < 5e-3
    loud = difference[wanted > -12]
    assert loud.max(initial=0) < 5e-4
    assert loud.sum() <= 5e-5 * loud.size
    return loud.size


@pytest.mark.parametrize("path", reference.golden_files("ssast_fbank*.npz"))
def test_constants(path):
    data = np.load(path)
    triangles = mel_triangles(128, 512, 16_000, 20.0, 8000.0)
    # An edge near 2840 mel has a float32 spacing of 2.4e-4, on slopes of 1 / 22.
    np.testing.assert_allclose(triangles, data["const/mel_banks_128x256"], rtol=0, atol=3e-5)
    assert [i for i, row in enumerate(triangles) if not row.any()] == [3]
    np.testing.assert_allclose(hann(400), data["const/window_400"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", reference.golden_files("ssast_fbank*.npz"))
def test_log_mel(path):
    loud = 0
    for _, clip, audio in cases(path):
        got = log_mel(Fbank(), audio)[0]
        assert got.shape == clip["out/fbank_mean_removed"].shape
        loud += compare(got, clip["out/fbank_mean_removed"])
        native = clip["out/fbank_kaldi_native"]
        compare(got[: len(native)], native)
        plain = clip["out/fbank_no_mean_removal"]
        compare(log_mel(Fbank(remove_mean=False), audio)[0, : len(plain)], plain)
    assert loud > 1000


@pytest.mark.parametrize("path", reference.golden_files("ssast_fbank*.npz"))
def test_normalised_and_padded(path):
    for case, clip, audio in cases(path):
        fbank = Fbank(frames=case["target_length"], mean=case["mean"], std=case["std"])
        got = np.asarray(fbank(audio))[0, case["rows_of_normalised_padded"]]
        difference = np.abs(got - clip["out/normalised_padded"]) * 2 * case["std"]
        assert difference.max() < 5e-3
        assert difference.mean() < 1e-4
