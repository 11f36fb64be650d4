"""Bags of spectral codes: what is counted, what they are fitted to, and the saved classifier."""

import dataclasses

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_audio
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import bag_of_codes, base, evaluate
from ssl_audio.eval.bag_of_codes import Bags, Fit, Refitted
from ssl_audio.eval.probe import Probe
from ssl_audio.objectives.bag_of_codes import BagOfCodes, View, perceive

RATE = 16_000
TINY = dict(hidden=(8,), width=4, codes=6)
VIEWS = (
    View("envelope", size=(16, 1), step=(16, 1), **TINY),
    View("both", windows=(0, 2), size=(8, 8), step=(8, 4), pooled=2, centred=True, **TINY),
)
MODEL = BagOfCodes(windows=(256, 512, 1024), bins=16, views=VIEWS, bigrams=8)
FIT = Fit(parts=300, epochs=1)
COUNT = 36
EVERYTHING = np.ones(COUNT, bool)


@pytest.fixture(scope="module")
def source():
    return Synthetic(size=60, seconds=0.3, folds=(1, 2, 3))


@pytest.fixture(scope="module")
def bags(source):
    """Return bags that remember what they were fitted to, so that each fold is fitted once."""
    return Bags(source, MODEL, FIT)


@pytest.fixture(scope="module")
def truth(source):
    """Return split and labels."""
    metas = [source.meta(i) for i in range(COUNT)]
    return base.split(metas, "folds"), np.array([meta["label"] for meta in metas])


def by_hand(params, spectra, frames):
    """Return the bag of one clip, counted part by part."""
    found, first = [], []
    for view in MODEL.views:
        (bands, long), (up, along), own = view.size, view.step, params[view.title]
        counts = np.zeros(view.codes)
        for t in range(0, max(1, frames - long + 1), along):
            for f in range(0, MODEL.bins - bands + 1, up):
                x = spectra[t : t + long, list(view.windows), f : f + bands]
                x = np.stack([x[i : i + view.pooled].mean(0) for i in range(0, long, view.pooled)])
                x = x.ravel() - (x.mean() if view.centred else 0)
                x = (x - own["centre"]) * own["gain"]
                for name in sorted(own["encoder"]):
                    layer = own["encoder"][name]
                    x = x @ layer["kernel"] + layer["bias"]
                    x = np.maximum(x, 0) if int(name) + 1 < len(own["encoder"]) else x
                code = int(np.argmin(((own["book"] - x) ** 2).sum(1)))
                counts[code] += 1
                first += [code] if view is MODEL.views[0] else []
        found.append(np.sqrt(counts / counts.sum()))
    pairs = np.zeros(8)
    for one, two in zip(first[:-1], first[1:], strict=True):
        pairs[((one * 6 + two) * 2_654_435_761 % 2**32) >> 29] += 1
    return np.concatenate([*found, np.sqrt(pairs / max(1, pairs.sum()))])


def test_codes_are_counted_where_there_is_sound(source, bags):
    x, encoder = bags.of(EVERYTHING), bags.encoder(EVERYTHING)
    assert x.shape == (COUNT, MODEL.width) and encoder.width == MODEL.width == 20
    audio, length = source[3]["audio"], len(source[3]["audio"])
    spectra = MODEL.spectra(jnp.asarray(audio)[None], jnp.array([length]))[0]
    want = by_hand(encoder.params, np.asarray(spectra), 1 + (length - 1) // 256)
    np.testing.assert_allclose(x[3], want, atol=1e-6)
    np.testing.assert_allclose(encoder.embed(audio, RATE), x[3], atol=1e-6)
    # A clip of fewer frames than a part has one such part at each of the two places of the bands.
    counts = 2 * np.square(encoder.embed(audio[:700], RATE)[6:12])
    np.testing.assert_allclose(counts, counts.round(), atol=1e-6)
    assert counts.round().sum() == 2


def test_a_long_clip_is_the_sum_of_its_pieces(source, bags):
    encoder = bags.encoder(EVERYTHING)
    piece = np.tile(source[5]["audio"], 100)
    first, second = piece[: 30 * RATE], np.tile(source[6]["audio"], 50)[: 10 * RATE]
    assert len(first) == 30 * RATE and len(second) == 10 * RATE
    whole = encoder.embed(np.concatenate([first, second]), RATE)
    alone = [encoder.embed(clip, RATE) for clip in (first, second)]
    np.testing.assert_allclose(whole**2, (3 * alone[0] ** 2 + alone[1] ** 2) / 4, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Predict class 0; remember what was shown."""

    shown: list
    choices: tuple = (0.0,)

    def predict(self, x, y, train):
        self.shown.append(x)
        return y[None] * 0


def test_the_test_clips_have_no_part_in_the_fit(source, bags, truth):
    split, y = truth
    test = split.tests["1"]

    class Silenced(Synthetic):
        def __getitem__(self, i):
            found = super().__getitem__(i)
            return found | {"audio": 0 * found["audio"]} if test[i] else found

    other = Bags(Silenced(**dataclasses.asdict(source)), MODEL, FIT)
    params = [each.encoder(~test).params for each in (bags, other)]
    jax.tree.map(np.testing.assert_array_equal, *params)
    assert np.array_equal(bags.of(~test)[~test], other.of(~test)[~test])
    assert not np.array_equal(bags.of(~test)[test], other.of(~test)[test])
    shown = []
    scores = list(Refitted(bags, Fixed(shown), y, split).scores())
    assert [s.fold for s in scores] == list(split.tests) == ["1", "2", "3"]
    for x, held in zip(shown, split.tests.values(), strict=True):
        assert np.array_equal(x, bags.of(~held))


def test_autoencoders_learn(bags):
    view = VIEWS[0]
    parts = Fit(parts=512)._drawn(MODEL, view, bags._spectra, np.random.default_rng(0))
    centre, gain = base.statistics(parts)
    z = (parts - centre) * gain
    layers, errors = bag_of_codes.autoencoder(z, view, epochs=150, seed=0)
    assert errors[-1] < 0.75 * errors[0] and errors[-1] < 0.9 * np.mean(z**2)
    assert perceive(layers, jnp.asarray(z)).shape == (len(z), view.width)


def test_fewer_parts_than_codes():
    source = Synthetic(size=3, seconds=0.1)
    view = View("slice", windows=(0,), size=(16, 8), step=(16, 4), hidden=(8,), width=4, codes=9)
    model = BagOfCodes(windows=(256,), bins=16, views=(view,))
    bags = Bags(source, model, Fit(epochs=1))
    x = bags.of(np.ones(3, bool))
    assert x.shape == (3, 9) and (x[:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bigrams=12), "bigrams is 12; it must be a power of two"),
        (dict(bigrams=8, views=VIEWS[1:]), "several parts at one time"),
        (dict(views=VIEWS[:1] * 2), "of different names"),
        (dict(views=(View("a", windows=(3,)),)), "windows .3,.; there are 3"),
        (dict(bins=8), "parts of 16 of 8 bands"),
    ],
)
def test_models_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        BagOfCodes(**dict(windows=(256, 512, 1024), bins=16, views=VIEWS) | options)


def test_evaluate_fits_them_per_fold_and_saves_a_classifier(
    source, bags, truth, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bag_of_codes, "Bags", lambda *args, **options: bags)
    monkeypatch.setitem(
        evaluate.SETS, "synthetic", (dict(kind="synthetic", **dataclasses.asdict(source)), "folds")
    )
    run, probe = tmp_path / "run", tmp_path / "probe"
    encoders.save(encoders.encoder(frames=24), run, 1)
    records = evaluate.main(
        ["--checkpoint", str(run), "--set", "synthetic", "--features", "statistics", "--classifier"]
        + ["linear", "--save", str(probe)]
    )
    assert [r["fold"] for r in records] == ["1", "2", "3", "mean"]
    assert {r["features"] for r in records} == {"statistics"} and "layer" not in records[0]
    assert records[-1]["accuracy"] > 2 / 12  # chance is 1 / 12
    assert "statistics" in capsys.readouterr().out

    found = ssl_audio.load(probe)
    assert type(found).__name__ == "ProbeClassifier" and found.several is False
    clips, y = [source[i]["audio"] for i in range(COUNT)], truth[1]
    said = [found.labels.index(row) for row in found.predict(clips, RATE)["predicted"]]
    best = Probe().choices.index(found.config["probe"]["choice"])
    want = Probe().predict(bags.of(EVERYTHING), y, EVERYTHING)[best]
    assert said == want.tolist()
    vectors = found.encoder.embed(clips[:2], RATE)
    np.testing.assert_allclose(vectors, bags.of(EVERYTHING)[:2], atol=1e-6)
    with pytest.raises(ValueError, match="shots: 'statistics'"):
        evaluate.evaluate(found, source, "folds", kinds=["statistics"], shots=2)
