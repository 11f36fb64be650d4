"""Mixtures with earlier clips and resized crops, against the slow way to write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.mixed_crops import (
    KMix,
    LogMixup,
    MixedCrops,
    ResizedCrop,
    log_mixed,
    resized,
)


def weight(x, a=-0.75):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def by_hand(spec, time, frequency, canvas):
    """Lay one spectrogram into a canvas, cut a rectangle (begin, size) out and resize it, point by point."""
    frames, bins = spec.shape
    tall, wide = int(frames * canvas[1]), int(bins * canvas[0])
    whole = np.zeros((tall, wide))
    y, x = (tall - frames) // 2, (wide - bins) // 2
    whole[y : y + frames, x : x + bins] = spec
    cut = whole[time[0] : time[0] + time[1], frequency[0] : frequency[0] + frequency[1]]
    made = np.zeros((frames, bins))
    for t in range(frames):
        for f in range(bins):
            at = t * (cut.shape[0] - 1) / (frames - 1), f * (cut.shape[1] - 1) / (bins - 1)
            first = [int(np.floor(place)) for place in at]
            for i in range(first[0] - 1, first[0] + 3):
                for j in range(first[1] - 1, first[1] + 3):
                    there = cut[np.clip(i, 0, len(cut) - 1), np.clip(j, 0, cut.shape[1] - 1)]
                    made[t, f] += weight(at[0] - i) * weight(at[1] - j) * there
    return made


def test_resized_crop_is_bicubic_with_aligned_corners():
    spec = np.random.default_rng(0).normal(size=(3, 12, 8)).astype(np.float32)
    time, frequency = [(1, 9), (0, 18), (5, 1)], [(0, 8), (1, 5), (3, 4)]
    # The canvas is half as long again, so the spectrogram begins at its row 3.
    begin, size = (jnp.asarray([side[i] for side in time]) for i in (0, 1))
    made = jax.jit(resized)(jnp.asarray(spec), begin - 3, size)
    begin, size = (jnp.asarray([side[i] for side in frequency]) for i in (0, 1))
    made = jnp.swapaxes(jax.jit(resized)(jnp.swapaxes(made, 1, 2), begin, size), 1, 2)
    for i in range(3):
        wanted = by_hand(spec[i], time[i], frequency[i], (1.0, 1.5))
        np.testing.assert_allclose(made[i], wanted, atol=1e-5)


def test_crops_are_drawn_as_published():
    """A ramp along an axis tells where a crop began and how long it is."""
    frames, bins = 40, 16
    rows = np.broadcast_to(np.arange(frames)[None, :, None] + 100.0, (800, frames, bins))
    crop = jax.jit(ResizedCrop(canvas=(1.0, 1.0)))
    made = np.asarray(crop(jnp.asarray(rows, jnp.float32), jax.random.key(0)))[:, :, bins // 2]
    first, last = made[:, 0] - 100, made[:, -1] - 100
    size = np.round(last - first + 1)
    # 0.6 to 1.5 times 40, cut at 40: five ninths are whole.
    assert size.min() == 24 and size.max() == 40
    assert (size == 40).mean() == pytest.approx(5 / 9, abs=0.06)
    short = size < 40
    place = first[short] / (40 - size[short])
    assert (place.min(), place.max()) == pytest.approx((0, 1), abs=1e-3)
    assert place.mean() == pytest.approx(0.5, abs=0.05)

    made = np.asarray(jax.jit(ResizedCrop())(jnp.ones((400, frames, bins)), jax.random.key(1)))
    empty = made[:, :, bins // 2] == 0
    assert empty[:, 0].mean() > 0.3 and empty[:, -1].mean() > 0.3  # outside the clip
    assert (made[:, frames // 2] > 0).all()  # time 1.5 x 40 leaves 10 rows on each side
    whole = jax.jit(ResizedCrop((1.0, 1.0), frequency=(1.0, 1.0), time=(1.0, 1.0)))
    spec = jax.random.normal(jax.random.key(2), (2, frames, bins))
    np.testing.assert_allclose(whole(spec, jax.random.key(3)), spec, atol=1e-6)


def test_mixtures_are_of_energies_and_of_earlier_clips_only():
    mixup = LogMixup(most=0.4, clips=6)
    spec = jnp.broadcast_to(jnp.arange(4.0)[:, None, None], (4, 3, 2))
    memory = mixup.empty(spec)
    call = jax.jit(mixup.__call__)
    np.testing.assert_array_equal(call(spec, memory, jax.random.key(0)), spec)
    # So far apart that the loudness of a mixture tells the earlier clip, and the share of it.
    memory = mixup.remember(memory, 20 * (spec + 1))
    made = [call(spec, memory, jax.random.key(seed)) for seed in range(60)]
    made = np.asarray(made, np.float64)
    np.testing.assert_allclose(made, np.broadcast_to(made[:, :, :1, :1], made.shape), rtol=1e-6)
    made = made[:, :, 0, 0].ravel()
    chosen = np.ceil(made / 20)
    assert np.bincount(chosen.astype(int)).tolist()[0] == 0 and set(chosen) == {1, 2, 3, 4}
    share = np.exp(made - 20 * chosen)
    assert share.max() < 0.4 + 1e-4 and share.mean() == pytest.approx(0.2, abs=0.03)
    assert len(set(share)) > 200  # a draw of its own for each clip
    x, other = jnp.log(jnp.full((1, 1, 1), 2.0)), jnp.log(jnp.full((1, 1, 1), 5.0))
    wanted = pytest.approx(np.log(0.75 * 2 + 0.25 * 5))
    assert float(log_mixed(x, other, 0.25)[0, 0, 0]) == wanted


def test_the_oldest_clips_are_forgotten_first():
    mixup = LogMixup(clips=5)
    memory = mixup.empty(jnp.zeros((1, 1, 1)))
    remember = jax.jit(mixup.remember)
    for first in range(0, 24, 2):
        memory = remember(memory, jnp.asarray([[[first + 0.0]], [[first + 1.0]]]))
        seen = set(np.asarray(memory["clips"]).ravel()[: min(first + 2, 5)].tolist())
        assert seen == set(range(max(0, first - 3), first + 2))
    assert memory["count"] < 2 * 5
    with pytest.raises(ValueError, match="a batch of 6 clips does not fit a memory of clips=5"):
        mixup.remember(memory, jnp.zeros((6, 1, 1)))


def test_k_mix_takes_from_the_farthest_cluster_that_has_clips():
    mixup = KMix(clips=12, clusters=3, fewest=6)
    # Three kinds of spectra; the third is nearly opposite to the first, the second in between.
    kinds = np.asarray([[1.0, 0.0, 0.2], [0.0, 1.0, 0.0], [-1.0, 0.4, 0.0]])
    rng = np.random.default_rng(0)

    def clips(which):
        spec = np.repeat(kinds[which][:, None], 4, axis=1) + rng.normal(0, 0.01, (len(which), 4, 3))
        return jnp.asarray(spec, jnp.float32)

    remember = jax.jit(mixup.remember)
    choose = jax.jit(lambda spec, memory, key: mixup.choose(spec, memory, memory["count"], key))
    memory = remember(mixup.empty(clips([0])), clips([0, 1, 2]))
    asked = clips([0] * 40)
    early = np.asarray(choose(asked, memory, jax.random.key(0)))
    assert set(early) == {0, 1, 2}  # too few are remembered: any of them
    memory = remember(memory, clips([0, 1, 2, 2, 0]))
    held = np.asarray([0, 1, 2, 0, 1, 2, 2, 0])
    directions = kinds / np.linalg.norm(kinds, axis=1, keepdims=True)
    assert (np.asarray(memory["centres"]) * directions).sum(1) == pytest.approx(1, abs=1e-3)
    for own, far in ((0, 2), (1, 0), (2, 0)):
        chosen = np.asarray(choose(clips([own] * 40), memory, jax.random.key(own)))
        assert set(chosen) == set(np.flatnonzero(held == far)), (own, far)
    lonely = memory | {"clips": memory["clips"].at[jnp.asarray([2, 5, 6])].set(clips([1] * 3))}
    chosen = np.asarray(choose(asked, lonely, jax.random.key(1)))
    assert set(chosen) == {1, 2, 4, 5, 6}  # no clip of the farthest cluster is left
    with pytest.raises(ValueError, match="fewest=300"):
        KMix(clips=12, fewest=300)


def test_views_differ_and_nothing_flows_back_from_the_memory():
    views = MixedCrops(LogMixup(clips=4))
    spec = jax.random.normal(jax.random.key(0), (2, 12, 8))
    memory = views.remember(views.empty(spec), spec)
    view = jax.jit(views)
    first, second = (view(spec, memory, jax.random.key(seed)) for seed in (1, 2))
    assert first.shape == spec.shape and float(jnp.abs(first - second).max()) > 0.1
    slope = jax.grad(lambda x: jnp.sum(views.remember(views.empty(x), x)["clips"]))(spec)
    assert not slope.any()


def test_bad_ranges_are_refused():
    with pytest.raises(ValueError, match="most=1.0"):
        LogMixup(most=1.0)
    with pytest.raises(ValueError, match="canvas of at least 1"):
        ResizedCrop(canvas=(0.5, 1.0))
    with pytest.raises(ValueError, match="added is -1"):
        Mel(added=-1.0)


def test_log_mel_as_librosa_makes_it():
    """The front end of LAPE: librosa's STFT and mel bands, the least float added, the natural logarithm."""
    librosa = pytest.importorskip("librosa")
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 15_200)).astype(np.float32)
    audio[1, 4000:12_000] = 0
    eps = float(np.finfo(np.float32).eps)
    bands = librosa.filters.mel(sr=16_000, n_fft=1024, n_mels=64, fmin=60, fmax=7800)
    mel = Mel(
        rate=16_000, bins=64, hop=160, window=1024, low=60.0, high=7800.0, added=eps,
        mean=-20.0, std=10.0,
    )  # fmt: skip
    made = np.asarray(mel(jnp.asarray(audio)))
    assert made.shape == (2, 96, 64)
    for clip, spec in zip(audio, made, strict=True):
        lines = librosa.stft(clip, n_fft=1024, hop_length=160, pad_mode="reflect")
        wanted = np.log(bands @ np.abs(lines) ** 2 + eps).T
        factor = 10 / np.log(10)  # the mean and the deviation of natural logarithms are in dB here
        wanted = (wanted - -20 / factor) / (10 / factor)
        np.testing.assert_allclose(spec, wanted, atol=2e-4)
    assert made.min() == pytest.approx((10 * np.log10(eps) + 20) / 10)
