"""The protocol of FSD50K: patches of a second, half apart, whose probabilities are averaged per clip."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest
import soundfile
from fsd50k import VOCABULARY, tree
from scipy.special import expit, softmax

from ssl_audio import config
from ssl_audio.distributed import sharding
from ssl_audio.eval import classify, metrics
from ssl_audio.inference import classifier
from ssl_audio.inference.averages import averaged
from ssl_audio.inference.windows import apart
from ssl_audio.structs import TrainState

RATE = 1000
SECONDS = {"a": 0.3, "b": 1.0, "c": 2.3, "d": 5.0, "e": 0.7}
WINDOWS = {"a": 1, "b": 1, "c": 4, "d": 9, "e": 1}


class Levels:
    """An objective whose logits are the mean level of a patch, of its first half, and its length."""

    def predictors(self):
        return {"logits": self.logits}

    def logits(self, params, extra, batch):
        audio = batch["audio"]
        half = audio[:, : RATE // 2]
        length = batch["length"] / RATE
        return params["scale"] * jax.numpy.stack([audio.mean(1), half.mean(1), length], axis=1)


@pytest.fixture
def clips(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,labels"]
    for n, (name, seconds) in enumerate(SECONDS.items()):
        samples = np.cumsum(rng.normal(size=round(seconds * RATE))) / 100
        soundfile.write(tmp_path / f"{name}.wav", np.clip(samples, -1, 1), RATE, subtype="FLOAT")
        rows.append(f"{name}.wav,{'x;y' if n % 2 else 'z'}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    return dict(kind="source:Manifest", path=str(tmp_path / "list.csv"), rate=RATE)


def evaluator(clips, **options):
    settings = dict(kind="classify", source=clips, samples=RATE, classes=3, batch_size=8)
    return config.build(settings | dict(hop=RATE // 2, fill="repeat") | options, "eval")


def predict(found, scale=3.0):
    mesh = sharding.Sharding().mesh()
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        return found.predict(Levels(), {"scale": np.float32(scale)}, {}, mesh)


def by_hand(source, scale=3.0):
    """Return the logits of the patches of each clip."""
    found = []
    for i in range(len(source)):
        audio = source[i]["audio"]
        if len(audio) < RATE:
            audio = np.concatenate([audio] * 4)[:RATE]
        starts = [*range(0, len(audio) - RATE, RATE // 2), len(audio) - RATE]
        cut = np.stack([audio[s : s + RATE] for s in starts])
        levels = [cut.mean(1), cut[:, : RATE // 2].mean(1), np.ones(len(cut))]
        found.append(scale * np.stack(levels, axis=1))
    return found


def test_patches_reach_from_a_clips_begin_to_its_end():
    for samples in range(1, 60):
        cut, length = apart(np.arange(samples, dtype=np.float32), 10, 5)
        assert length == min(samples, 10)
        assert len(cut) == 1 + max(0, -(-(samples - 10) // 5))
        starts = cut[:, 0].astype(int)
        assert starts[0] == 0 and starts[-1] == max(0, samples - 10)
        assert (np.diff(starts)[:-1] == 5).all() and (np.diff(starts) <= 5).all()
        assert cut.max() == samples - 1


@pytest.mark.parametrize("average", ["logits", "softmax", "sigmoid"])
def test_probabilities_of_a_clips_patches_are_averaged(clips, average):
    found = evaluator(clips, average=average)
    made = predict(found)
    patches = by_hand(found.source)
    assert list(map(len, patches)) == list(WINDOWS.values())
    assert list(made.ids) == [f"{name}.wav" for name in SECONDS]
    assert made.labels.tolist() == [[1.0, 1, 0] if n % 2 else [0, 0, 1] for n in range(5)]
    of: dict = {"logits": lambda x: x, "softmax": lambda x: softmax(x, axis=-1), "sigmoid": expit}
    want = np.stack([of[average](x).mean(axis=0) for x in patches])
    np.testing.assert_allclose(of[average](made.logits), want, atol=1e-6)


def test_batches_do_not_matter_and_patches_can_count_by_themselves(clips):
    made = predict(evaluator(clips, average="sigmoid"))
    again = predict(evaluator(clips, average="sigmoid", batch_size=16))
    np.testing.assert_allclose(again.logits, made.logits, atol=1e-6)
    found = evaluator(clips, average="none")
    alone = predict(found)
    assert list(alone.ids) == [f"{name}.wav" for name, n in WINDOWS.items() for _ in range(n)]
    np.testing.assert_allclose(alone.logits, np.concatenate(by_hand(found.source)), atol=1e-5)
    assert alone.labels.shape == (16, 3)


def test_windows_are_scored_beside_clips_in_one_pass(clips, monkeypatch):
    found = evaluator(clips, average="sigmoid", windows=True)
    reads = []
    windows = type(found)._windows
    monkeypatch.setattr(
        type(found), "_windows", lambda self, rows: reads.append(rows) or windows(self, rows)
    )
    state = TrainState(np.int32(0), {"scale": np.float32(3)}, {}, {}, jax.random.key(0))
    mesh = sharding.Sharding().mesh()
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        both = found.run(Levels(), state, mesh)
        assert len(reads) == 1
        apart = evaluator(clips, average="none").run(Levels(), state, mesh)
        whole = evaluator(clips, average="sigmoid").run(Levels(), state, mesh)
    assert both == whole | {f"windows/{name}": value for name, value in apart.items()}
    assert both["mAP"] != both["windows/mAP"]


def test_a_classifier_averages_as_its_evaluation_does():
    """Of a long clip `predict` gives what the evaluator gives of windows at the same places."""
    logits = np.random.default_rng(0).normal(0, 4, (3, 5)).astype(np.float32)
    for average in ("logits", "softmax", "sigmoid"):
        rows = classifier._Rows(average)
        pieces = [classifier._Piece(0, 0, end, logits[0], True) for end in (None, None, 9)]
        got = [row for p, x in zip(pieces, logits, strict=True) for row in rows.add(p, x)]
        assert [row[:2] for row in got] == [(0, 9)] and got[0][3]
        np.testing.assert_allclose(got[0][2], averaged(logits, average)[0], atol=1e-6)
    model = classifier.Classifier(Levels(), {}, dict(inference=dict(average="sigmoid")))
    assert model.average == "sigmoid"
    assert dataclasses.replace(model, config={}).average == "logits"
    with pytest.raises(ValueError, match="config.inference.average: got 'none', wanted one of"):
        _ = dataclasses.replace(model, config=dict(inference=dict(average="none"))).average


def test_fsd50k_is_scored(tmp_path):
    """By its own protocol, from its files to its metrics."""

    class Means:
        """An objective whose logits are the means of twelve parts of a patch."""

        def predictors(self):
            return {"logits": self.logits}

        def logits(self, params, extra, batch):
            return params["scale"] * batch["audio"][:, :22_044].reshape(-1, 12, 1837).mean(axis=2)

    found = config.build(
        dict(
            kind="classify", source=dict(kind="sets.fsd50k", root=tree(tmp_path), rate=22_050),
            samples=22_050, hop=11_025, fill="repeat", average="sigmoid", classes=len(VOCABULARY),
        ),
        "eval",
    )  # fmt: skip
    state = TrainState(np.int32(0), {"scale": np.float32(1000)}, {}, {}, jax.random.key(0))
    mesh = sharding.Sharding().mesh()
    with jax.set_mesh(mesh):
        objective = Means()
        said = found.run(objective, state, mesh)
        made = found.predict(objective, state.params, {}, mesh)
    assert len(made.ids) == 5 and made.labels.sum() == 13
    known = made.labels.any(axis=0)
    assert said["classes"] == known.sum() == 12
    for name, metric in (
        ("mAP", metrics.mean_average_precision),
        ("micro_mAP", metrics.micro_average_precision),
        ("AUC", metrics.macro_auc),
        ("d_prime", metrics.d_prime),
        ("lwlrap", metrics.lwlrap),
    ):
        assert said[name] == metric(made.logits, made.labels) and np.isfinite(said[name])
        # Probabilities have the order of logits, so they score the same.
        same = metric(expit(made.logits), made.labels)
        assert said[name] == pytest.approx(same, abs=1e-12)


def test_extreme_probabilities_keep_their_order():
    logits = np.array([[60.0, 50, -90, -80], [70, 50, -90, -80]])
    for average in ("sigmoid", "softmax"):
        made = classify.averaged(logits, average)
        assert np.isfinite(made).all() and (np.argsort(made[0]) == [2, 3, 1, 0]).all()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 5)) * 4
    mean = expit(logits).mean(axis=0)
    np.testing.assert_allclose(expit(classify.averaged(logits, "sigmoid"))[0], mean, rtol=1e-12)
    mean = softmax(logits, axis=1).mean(axis=0)
    np.testing.assert_allclose(np.exp(classify.averaged(logits, "softmax"))[0], mean, rtol=1e-12)


def test_hosts_with_unequal_work_stop_together(clips, monkeypatch):
    """Each of two hosts sees only its own clips, and has empty rows while the other has patches."""
    found = evaluator(clips)
    seen, more = [], []
    for host in range(2):
        monkeypatch.setattr(classify.processes, "count", lambda: 2)
        monkeypatch.setattr(classify.processes, "index", lambda host=host: host)
        batches = list(itertools.islice(found._batches(4), 5))
        assert all(len(batch["index"]) == 4 for batch in batches)
        seen.append([n for batch in batches for n in batch["index"] if n >= 0])
        more.append([bool(batch["more"].any()) for batch in batches])
    want = [n for n, count in enumerate(WINDOWS.values()) for _ in range(count)]
    assert seen == [want[:-1], want[-1:]]  # the first four clips, and the fifth
    assert more == [[True, True, True, False, False], [False] * 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(views=2), "views=2 and hop=500"),
        (dict(hop=-1), "hop=-1"),
        (dict(average="mean"), "average: got 'mean', wanted one of logits, softmax"),
        (dict(fill="join"), "fill: got 'join', wanted one of zeros, repeat"),
    ],
)
def test_contradictions_are_refused(clips, options, message):
    with pytest.raises(ValueError, match=message):
        evaluator(clips, **options)
