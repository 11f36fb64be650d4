"""Targets along time lie where the sound of their events does, however a clip is cut, played or mixed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.data.event_entries import Events
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.scenes import Scenes, sounding
from ssl_audio.data.synthetic import Synthetic

RATE = 8000


def entry(**options):
    made: dict[str, Any] = dict(samples=4000, frames=50, hop=80, centre=40.0, classes=2)
    return Events(**(made | options))


def example(spans, samples=12_000) -> dict[str, Any]:
    """Return sound that is 1 where class 0 is heard, else 0."""
    audio = np.zeros(samples, np.float32)
    for start, end, label in spans:
        if label == 0:
            audio[round(start * RATE) : round(end * RATE)] = 1
    return dict(audio=audio, rate=RATE, id="x", events=tuple(spans), more=None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 12_000), min_size=2, max_size=6, unique=True),
    st.integers(0, 9),
    st.data(),
)
def test_a_frame_holds_as_much_of_a_class_as_of_its_sound(edges, seed, data):
    at = sorted(edges)[: len(edges) // 2 * 2]
    spans = [(a / RATE, b / RATE, 0) for a, b in zip(at[::2], at[1::2], strict=True)]
    samples = data.draw(st.sampled_from([12_000, 4000, 1234]))
    given_ = example(spans, 12_000)
    given_["audio"] = given_["audio"][:samples]
    found = entry().draw(given_, np.random.default_rng(seed))
    heard = found["heard"] > 0
    assert heard.sum() == min(50, (int(found["length"]) + 39) // 80)
    share = found["audio"].reshape(50, 80).mean(1)
    whole = np.arange(1, 51) * 80 <= found["length"]  # the last frame with sound is part padding
    np.testing.assert_allclose(found["events"][whole, 0], share[whole], atol=1e-6)
    assert not found["events"][:, 1].any()


def test_events_go_along_when_sound_is_played_faster():
    found = [
        entry(speed=0.3, crop="first").draw(example([(0.1, 0.4, 0)]), np.random.default_rng(k))
        for k in range(8)
    ]
    ends = []
    for arrays in found:
        loud = arrays["audio"].reshape(50, 80).mean(1)
        np.testing.assert_allclose(arrays["events"][:, 0], loud, atol=0.06)
        ends.append(arrays["events"][:, 0].sum())
    assert np.ptp(ends) > 3


def test_mixtures_have_the_events_of_both():
    first = entry(crop="first").draw(example([(0, 0.1, 0)], 2000), np.random.default_rng(0))
    second = entry(crop="first").draw(example([(0.2, 0.4, 1)]), np.random.default_rng(0))
    mixed = entry().mix(first, second, 0.75)
    assert mixed["events"][:10, 0].tolist() == [0.75] * 10
    # The first one's sound ends after 0.25 s, and with it the frames that count.
    assert mixed["events"][:, 1].tolist() == [0.0] * 20 + [0.25] * 5 + [0.0] * 25
    assert mixed["heard"].sum() == 25 and mixed["length"] == 2000


def test_what_is_refused():
    with pytest.raises(ValueError, match="fill: got 'join'"):
        entry(fill="join")
    with pytest.raises(ValueError, match="names: wanted one per class, 2; got 1"):
        entry(names=("a",))
    with pytest.raises(ValueError, match="nothing says which events it has"):
        entry().draw({**example([]), "events": None}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="an event is of class 2, with classes=2"):
        entry().draw(example([(0, 1, 2)]), np.random.default_rng(0))


def test_scenes_say_where_their_sounds_are():
    scenes = Scenes(Synthetic(size=24, seconds=0.5), size=3, seconds=6.0, snr=(30.0, 40.0))
    one, same = scenes[1], scenes[1]
    assert np.array_equal(one["audio"], same["audio"]) and one["events"] == same["events"]
    inside = np.zeros(len(one["audio"]), bool)
    assert len(one["events"]) >= 1
    for start, end, label in one["events"]:
        assert 0 <= start < end <= 6 and 0 <= label < 12
        inside[round(start * 16_000) : round(end * 16_000)] = True
    power = [np.mean(one["audio"][mask] ** 2) for mask in (inside, ~inside)]
    assert 10 * np.log10(power[0] / power[1]) > 20
    assert len(sounding(np.zeros(100, np.float32), 8000)) == 0
    silent = np.concatenate([np.zeros(810), np.ones(400), np.zeros(999)])
    assert sounding(silent, 8000).shape == (480,)  # whole frames of 80 samples


def test_a_pipeline_of_scenes():
    scenes = Scenes(Synthetic(size=24, seconds=0.5, rate=RATE), size=8, seconds=2.0)
    pipeline = Pipeline(
        {"scenes": scenes}, 4, {"audio": entry(classes=12)}, rate=RATE, mixup=0.5, threads=0
    )
    batch = next(pipeline.batches())
    assert batch["events"].shape == (4, 50, 12) and batch["heard"].shape == (4, 50)
    assert batch["events"].any() and {k: v.shape for k, v in batch.items()} == {
        k: shape for k, (shape, _) in pipeline.spec().items()
    }
