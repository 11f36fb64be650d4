"""What a separator gains on mixtures: known separators have known gains."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.data.source import SourceInfo
from ssl_audio.eval.mixtures import Mixtures, by_class

SAMPLES = 240
TONES = np.sin(2 * np.pi * np.outer([3, 5, 8], np.arange(SAMPLES)) / SAMPLES).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Clips:
    """A tone for each of three classes, of which no two resemble each other, at many levels."""

    level: float = 0.05
    info = SourceInfo("tones", ("a", "b", "c"))

    def __len__(self):
        return 9

    def meta(self, i):  # noqa: D102
        return {"id": f"{i}", "label": i % 3, "rate": 100}

    def __getitem__(self, i):
        return {"audio": self.level * (1 + i) * TONES[i % 3], **self.meta(i)}


@dataclasses.dataclass(frozen=True)
class Known:
    """A separator that finds the tone of the class that it is asked for, or returns all there is."""

    deaf: bool = False

    def predictors(self) -> dict[str, Any]:  # noqa: D102
        return {"separate": self.separate}

    def segments(self, extra, batch):  # noqa: D102
        return batch

    def condition(self, params, extra, batch):  # noqa: D102
        return batch["label"]

    def separate(self, params, extra, batch):  # noqa: D102
        tone = batch["condition"] @ TONES
        level = 2 / SAMPLES * jnp.sum(batch["audio"] * tone, axis=1, keepdims=True)
        return batch["audio"] if self.deaf else level * tone


def measured(separator, **options):
    options = dict(classes=3, pairs=30, batch_size=7) | options
    return Mixtures(Clips(), SAMPLES, **options).measure(separator, {}, {})


def test_what_is_found_wholly_gains_much_and_the_other_one_loses_3_db():
    found = measured(Known())
    assert len(found.label) == 60 and (found.label != found.other).all()
    assert found.right.min() > 50
    # The error is both sounds, twice the energy that it is in the mixture.
    np.testing.assert_allclose(found.wrong, -10 * np.log10(2), atol=1e-3)
    np.testing.assert_allclose(found.half, 10 * np.log10(2), atol=1e-3)
    table = by_class(found, ("a", "b", "c"))
    assert sum(row["mixtures"] for row in table.values()) == 60
    assert found.scores["SDRi_wrong"] == pytest.approx(table["a"]["wrong"], abs=1e-3)


def test_the_mixture_itself_gains_nothing():
    found = measured(Known(deaf=True))
    np.testing.assert_allclose(found.right, 0, atol=1e-4)
    np.testing.assert_allclose(found.wrong, 0, atol=1e-4)


def test_pairs_are_the_same_each_time_and_classes_take_turns():
    test = Mixtures(Clips(), SAMPLES, classes=3, pairs=12)
    pairs = test.drawn()
    np.testing.assert_array_equal(pairs, test.drawn())
    assert (pairs[:, 0] % 3).tolist() == [0, 1, 2] * 4
    assert not np.array_equal(pairs, dataclasses.replace(test, seed=1).drawn())


def test_silent_clips_cannot_be_tested():
    with pytest.raises(ValueError, match="silent"):
        Mixtures(Clips(level=0), SAMPLES, classes=3).measure(Known(), {}, {})
