"""The bands of front ends: librosa's mel banks bit for bit, their centres in Hz, their values in dB."""

import hashlib
import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.fbank import Fbank
from ssl_audio.frontend.mel import Mel, mel_bands
from ssl_audio.frontend.stft import Stft

# SHA-256 of the float32 values, the same with librosa 0.11 and 1.0. Bins, FFT, rate, edges, scale, area.
BANKS = {
    "CLAP": ((64, 1024, 48_000, 50.0, 14_000.0, "slaney", True), "f921577c1b62b21f"),
    "CLAP, fused": ((64, 1024, 48_000, 50.0, 14_000.0, "htk", False), "50b8b9109d160701"),
    "M2D": ((80, 400, 16_000, 50.0, 8000.0, "slaney", True), "d94eee5cf2095270"),
    "PANNs": ((64, 1024, 32_000, 50.0, 14_000.0, "slaney", True), "50edbf75f0ffdb5b"),
    "PANNs, 16 kHz": ((64, 512, 16_000, 50.0, 8000.0, "slaney", True), "d4160db901e375f1"),
    "msclap": ((64, 1024, 44_100, 50.0, 8000.0, "slaney", True), "f25bfd5f55ccf4ba"),
    "an empty band": ((128, 512, 16_000, 20.0, 8000.0, "slaney", True), "8e61f0ddda0b463a"),
    "all": ((128, 2048, 22_050, 0.0, 11_025.0, "slaney", True), "21cf767a0f36b2f5"),
    "all, HTK": ((128, 2048, 22_050, 0.0, 11_025.0, "htk", True), "0d79be83d5ffbb6f"),
}
FRONTENDS = {
    "fbank": Fbank(bins=40),
    "stft": Stft(bins=40),
    "mel": Mel(bins=40),
    "htk": Mel(bins=40, scale="htk", area=False),
    "laid out for another rate": Mel(bins=40, rate=44_100, bank_rate=32_000),
}


@pytest.mark.parametrize("options, digest", BANKS.values(), ids=BANKS)
def test_banks_keep_their_bits(options, digest):
    bank = mel_bands(*options)
    assert bank.dtype == np.float32 and bank.shape == (options[0], options[1] // 2 + 1)
    unsigned = bank + np.float32(0)  # no -0.0
    assert hashlib.sha256(unsigned.tobytes()).hexdigest()[:16] == digest


def test_without_librosa_the_error_names_the_front_end(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    mel_bands.cache_clear()
    with pytest.raises(ImportError, match="front end 'mel'.*librosa.*pip install.*fbank"):
        Mel()(jnp.zeros((1, 4800)))
    Stft()(jnp.zeros((1, 4800)))


@pytest.mark.parametrize("frontend", FRONTENDS.values(), ids=FRONTENDS)
def test_a_tone_at_the_centre_of_a_band_lights_it_up(frontend):
    centres = frontend.frequencies
    assert centres.shape == (40,) and (np.diff(centres) > 0).all()
    band = 31
    seconds = np.arange(frontend.rate // 5) / frontend.rate
    tone = np.sin(2 * np.pi * centres[band] * seconds)[None]
    spec = np.asarray(frontend(jnp.asarray(tone, jnp.float32)))[0]
    assert spec[len(spec) // 2].argmax() == band


@pytest.mark.parametrize("frontend", FRONTENDS.values(), ids=FRONTENDS)
def test_decibels_of_the_features(frontend):
    audio = np.random.default_rng(0).normal(size=(1, 8000)).astype(np.float32)
    quiet, loud = (
        frontend.decibels(np.asarray(frontend(jnp.asarray(k * audio)))) for k in (0.1, 1.0)
    )
    np.testing.assert_allclose(loud - quiet, 20, atol=0.1)
    scale = 1 if isinstance(frontend, Mel) else 10 / math.log(10)
    raw = scale * np.asarray(frontend.log_mel(jnp.asarray(audio)))
    np.testing.assert_allclose(loud, raw, atol=1e-4)
