#!/usr/bin/env bash
# kaldi-native-fbank: its Stft leaves the end of each frame without a window, and its Whisper features are 5 ms late.
#
# Expected: Stft(n_fft=512, win_length=400) is what torch.stft and librosa make of these numbers, a window of 400
#   in the middle of 512, or else 400 samples and zeros. OnlineWhisperFbank gives Whisper's mel energies, frame t
#   around sample 160 t.
# Happens: Stft multiplies the first win_length samples of a frame by the window and takes the other
#   n_fft - win_length as they are. Nothing says so and shapes are right, but each frame has two steps in it, which
#   leak over the spectrum: 1 kHz beside a tone the level is 49 dB higher than in torch. With win_length = n_fft
#   it is exact to 1e-6, and so is a window given in full: n_fft numbers, padded with zeros by you.
#   OnlineWhisperFbank computes the right energies half a hop late: frame t is around sample 160 t + 80.
# Matters: models with windows of 25 ms in an FFT of 512 get other spectra than in training. Features
#   for Whisper computed so differ from its own by 0.24 in log10 on average (white noise), of the 8 that Whisper
#   keeps; times read off its frames are 5 ms off, and a model distilled or compared frame by frame gets other pairs.
# Versions: kaldi-native-fbank 1.23.0, torch 2.13.0, librosa 0.11.0 (Whisper's filters), numpy 2.4.6; Python 3.11.
# Source: kaldi-native-fbank's docstring of StftConfig (win_length, "must be <= n_fft"), which does not say where the
#   window lies; kaldi-native-fbank#65, open, and kaldifeat#116 report that its Whisper features differ and name the
#   edges or the STFT; Kaldi's frames without snipped edges, which lie around the middle of their shift;
#   whisper/audio.py (torch.stft with its default centring).
# Output seen:
#   512 of 512: differs from torch by 2e-07 of the largest value
#   480 of 512: differs from torch by 5e-01 of the largest value
#   400 of 512: differs from torch by 1e+00 of the largest value
#   256 of 512: differs from torch by 2e+00 of the largest value
#   400 of 512: a frame is its samples times (window, then ones): True
#   400 of 512, window given as 512 numbers: differs from torch by 2e-07
#   3.01 kHz alone, seen at 2 kHz: -48 dB, by torch -97 dB
#   Whisper: log10 differs from Whisper's own by 0.24, from that of the sound 80 samples on by 8e-07
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check kaldi-native-fbank==1.23.0 torch==2.13.0 librosa==0.11.0 \
  numpy==2.4.6 || exit 2
cat > look.py <<'PY'
import sys

import kaldi_native_fbank as knf
import librosa
import numpy as np
import torch

changed = []
SIZE, HOP = 512, 160
sound = (0.1 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)


def expect(holds, *line):
    print(*line)
    if not holds:
        changed.append(" ".join(map(str, line)))


def spectra(sound, length, window=()):
    """Return kaldi-native-fbank's spectra [frames, bins], and torch's for a window of `length`."""
    given = {"win_length": SIZE, "window": window} if window else {"win_length": length, "window_type": "hann"}
    made = knf.Stft(knf.StftConfig(n_fft=SIZE, hop_length=HOP, **given))(sound.tolist())
    shape = made.num_frames, -1
    wanted = torch.stft(
        torch.from_numpy(sound), SIZE, HOP, length, torch.hann_window(length), return_complex=True
    )
    return np.reshape(made.real, shape) + 1j * np.reshape(made.imag, shape), wanted.numpy().T


def differ(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


for length in (512, 480, 400, 256):
    share = differ(*spectra(sound, length))
    right = share < 1e-5 if length == SIZE else share > 0.1
    expect(right, f"{length} of {SIZE}: differs from torch by {share:.0e} of the largest value")
frame = np.fft.irfft(spectra(sound, 400)[0][20], SIZE)
samples = np.pad(sound, SIZE // 2, mode="reflect")[20 * HOP :][:SIZE]
window = torch.hann_window(400).numpy()
same = np.allclose(frame, samples * np.r_[window, np.ones(112)], atol=1e-5)
expect(same, "400 of 512: a frame is its samples times (window, then ones):", same)
share = differ(*spectra(sound, 400, np.pad(window, 56).tolist()))
expect(share < 1e-5, f"400 of 512, window given as 512 numbers: differs from torch by {share:.0e}")
tone = np.sin(2 * np.pi * 3010 * np.arange(48_000) / 16_000).astype(np.float32)
levels = [np.median(np.abs(some[:, 64]) / np.abs(some).max()) for some in spectra(tone, 400)]
own, torchs = 20 * np.log10(levels)
expect(own > torchs + 30, f"3.01 kHz alone, seen at 2 kHz: {own:.0f} dB, by torch {torchs:.0f} dB")

options = knf.WhisperFeatureOptions()
options.dim = 80
online = knf.OnlineWhisperFbank(options)
online.accept_waveform(16_000, sound.tolist())
online.input_finished()
found = np.stack([online.get_frame(t) for t in range(online.num_frames_ready)])
filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80)


def whisper(sound):
    found = torch.stft(torch.from_numpy(sound), 400, 160, window=torch.hann_window(400), return_complex=True)
    return (filters @ (found[..., :-1].abs() ** 2).numpy()).T


def apart(wanted):
    inner = slice(3, len(found) - 3)
    return np.abs(np.log10(found[inner]) - np.log10(wanted[inner])).mean()


own, later = apart(whisper(sound)), apart(whisper(np.roll(sound, -80)))
expect(
    own > 0.1 and later < 1e-5,
    f"Whisper: log10 differs from Whisper's own by {own:.2f}, from that of the sound 80 samples on by {later:.0e}",
)
print("changed: " + "; ".join(changed) if changed else "as described")
sys.exit(bool(changed))
PY
venv/bin/python look.py
