"""A classifier on recordings of any length: frames and windows at their times, in pieces as in one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import drawn

from ssl_audio.config import build
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.event_scores import Windows, events, hear, usual_windows
from ssl_audio.inference.events import Rule

RATE, SAMPLES, HOP = 16_000, 10_480, 1280


@pytest.fixture(scope="module")
def classifier():
    """Return one with random parameters, on columns of 80 ms."""
    config = dict(
        objective=dict(
            kind="frame_tagging",
            frontend=dict(kind="fbank", bins=16, frames=64),
            tokenizer=dict(kind="patchify", width=1, patch=(16, 8), stride=(16, 8)),
            encoder=dict(kind="identity"),
            head=dict(kind="classify:Frames", classes=2),
        ),
        data=dict(
            entries=dict(
                audio=dict(kind="event_entries:Events", samples=SAMPLES, frames=8, hop=HOP,
                           centre=760.0, classes=2, names=("quiet", "loud")),
            )
        ),
        steps="1",
    )  # fmt: skip
    objective = build(config["objective"], "objectives")
    params = drawn(objective, Classifier(objective, {}, config).blank())
    return Classifier(objective, params, config)


def test_the_shape_of_a_column(classifier):
    assert classifier.frame_grid == (8, HOP, 760.0)
    assert classifier.labels == ("quiet", "loud") and classifier.several
    assert usual_windows(classifier) is None
    np.testing.assert_allclose(classifier.times(2), [760 / 16, 2040 / 16])


def loudness(classifier):
    """Return a classifier whose frame logits are the loudness of columns, by a function of our own."""

    class Loud(type(classifier.objective)):
        def frame_logits(self, params, extra, batch):
            spec = self.frontend(batch["audio"], batch["length"])
            level = jnp.mean(spec, 2).reshape(len(spec), -1, 8).mean(2)
            return jnp.stack([-level, level], -1) * 20

    fields = {
        f.name: getattr(classifier.objective, f.name)
        for f in dataclasses.fields(classifier.objective)
    }
    made = dataclasses.dataclass(frozen=True)(Loud)
    return dataclasses.replace(classifier, objective=made(**fields))


def recording(*spans, seconds=3.0):
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 1e-4, int(seconds * RATE)).astype(np.float32)
    for start, end in spans:
        part = slice(int(start * RATE), int(end * RATE))
        audio[part] += rng.normal(0, 0.3, audio[part].shape).astype(np.float32)
    return audio


def test_frames_lie_where_the_sound_is_and_pieces_change_nothing(classifier):
    classifier, rule = loudness(classifier), Rule(0.5, 0.5, min_length=0.1)  # not the padding
    audio = recording((0.5, 1.0), (2.0, 2.4))
    found = [e for e in events(classifier, audio, RATE, rule) if e.label == 1]
    assert len(found) == 2
    for event, (start, end) in zip(found, ((0.5, 1.0), (2.0, 2.4)), strict=True):
        assert abs(event.start - start) < 0.09 and abs(event.end - end) < 0.09
    pieces = [audio[k : k + 7001] for k in range(0, len(audio), 7001)]
    both = dict(hear(classifier, [iter(pieces), audio], [rule] * 2, smooth=0.24, keep=True))
    assert both[0].events == both[1].events and both[0].duration == both[1].duration == 3.0
    np.testing.assert_array_equal(both[0].values, both[1].values)
    edges = both[0].edges
    assert edges[0] == 0 and edges[-1] == 3.0 and (np.diff(edges) > 0).all()
    # Between two edges a column is centred.
    np.testing.assert_allclose(
        (edges[2:-2] + edges[1:-3])[:8] / 2, classifier.times(9)[1:] / 1000, atol=1e-6
    )


def test_a_recording_shorter_than_a_training_clip_ends_where_it_ends(classifier):
    (found,) = dict(
        hear(loudness(classifier), [recording(seconds=0.3)], [Rule()] * 2, keep=True)
    ).values()
    assert found.edges[-1] == found.duration == 0.3 and len(found.values) == 4
    assert found.events == [found.events[0]] and found.events[0][:3] == (0, 0.0, 0.3)


def test_windows_give_scores_along_time(classifier):
    audio = recording((1.0, 2.0))
    windows = Windows(0.655, 0.25)
    ((_, heard),) = hear(classifier, [audio], [Rule()] * 2, windows, keep=True)
    scores = classifier.scores(audio, RATE, window=0.655, hop=0.25)
    middle = (heard.edges[:-1] + heard.edges[1:]) / 2
    wanted = [scores.values[(scores.starts <= t) & (t < scores.ends)].mean(0) for t in middle]
    np.testing.assert_allclose(heard.values, wanted, atol=1e-6)
    assert heard.edges[-1] == heard.duration == 3.0
    with pytest.raises(ValueError, match="wanted a hop above 0 and up to the window"):
        Windows(1.0, 1.5)


def test_scores_that_are_not_finite_are_told(classifier):
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), classifier.params)
    broken = dataclasses.replace(classifier, params=broken)
    for windows in (None, Windows(0.655, 0.655)):
        ((_, heard),) = hear(broken, [recording(seconds=1.0)], [Rule()] * 2, windows)
        assert not heard.finite
    with pytest.raises(ValueError, match="scores are NaN or infinite"):
        events(broken, recording(seconds=1.0), RATE)
