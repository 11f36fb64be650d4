"""Recordings through a separator: piece by piece, channel by channel, asked for in every way; the command."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data import hierarchy
from ssl_audio.inference import separate, separator
from ssl_audio.inference.separator import Separator, families
from ssl_audio.objectives import anchors, queries
from ssl_audio.objectives.base import Objective
from ssl_audio.storage import exported

RATE, SIZE = 1000, 400
OBJECTIVE = dict(
    kind="separation",
    spectrum=dict(kind="spectrum", rate=RATE, size=32, hop=8),
    model=dict(kind="resunet", channels=(4, 4), norm=dict(kind="norms:BatchNorm", momentum=0.01)),
    query=dict(kind="queries:Label"),
    anchor=dict(kind="anchors:Loudest", frames=40, hop=10),
)
CONFIG = dict(
    objective=OBJECTIVE,
    data=dict(
        rate=RATE,
        entries=dict(
            audio=dict(kind="entries:Audio", samples=SIZE),
            label=dict(kind="entries:Labels", classes=3, names=("dog", "rain", "Tea, kettle")),
        ),
    ),
)


@dataclasses.dataclass(frozen=True)
class Tagger(Objective):
    """Hears class 0 where there is sound, and class 1 a little, whatever there is."""

    def init(self, key, batch):  # noqa: D102
        return {}, {}

    def loss(self, params, extra, batch, key, *, train):  # noqa: D102
        raise NotImplementedError

    def predictors(self):  # noqa: D102
        def logits(params, extra, batch):
            loud = jax.numpy.abs(batch["audio"]).max(-1)
            return jax.numpy.stack([100 * loud - 5, 0 * loud - 3, 0 * loud], -1)

        return {"logits": logits}


@pytest.fixture(scope="module")
def model() -> Separator:
    objective = config.build(OBJECTIVE, "objectives")
    blank = {
        "audio": np.zeros((1, SIZE), np.float32),
        "length": np.full(1, SIZE, np.int32),
        "label": np.zeros((1, 3), np.float32),
    }
    params, extra = jax.jit(objective.init)(jax.random.key(0), blank)
    return Separator(objective, jax.tree.map(np.asarray, params), CONFIG, extra=extra)


def sound(samples, channels=1, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, samples)).astype(np.float32) * 0.1


def streamed(model, pieces, wanted, **how):
    found = list(model.stream(iter(pieces), wanted, **how))
    return (np.concatenate(each, -1) for each in zip(*found, strict=True))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_pieces_of_any_length_give_the_same(model, overlap):
    recording, wanted = sound(4321), [model.of_classes("dog", ["dog"])]
    mixture, whole = streamed(model, [recording], wanted, overlap=overlap)
    np.testing.assert_array_equal(mixture, recording)
    pieces = np.split(recording, [1, 399, 400, 401, 2000, 4000, 4319], axis=1)
    again, parts = streamed(model, pieces, wanted, overlap=overlap)
    np.testing.assert_array_equal(again, recording)
    np.testing.assert_array_equal(parts, whole)
    assert whole.shape == (1, 1, 4321) and np.abs(whole).max() > 0


def test_segments_stand_side_by_side_or_fade(model):
    recording, wanted = sound(1000), [model.of_classes("dog", ["dog"])]
    plain = model.separate(recording[0], RATE, wanted)
    first, second = (
        model.separate(recording[0, begin : begin + SIZE], RATE, wanted) for begin in (0, SIZE)
    )
    np.testing.assert_allclose(plain[:, :SIZE], first, atol=1e-6)
    np.testing.assert_allclose(plain[:, SIZE : 2 * SIZE], second, atol=1e-6)
    half = model.separate(recording[0], RATE, wanted, overlap=0.5)
    middle = model.separate(recording[0, 200:600], RATE, wanted)
    rise = (np.arange(200) + 1) / 201
    want = first[:, 200:] * (1 - rise) + middle[:, :200] * rise
    np.testing.assert_allclose(half[:, 200:400], want, atol=1e-6)
    np.testing.assert_allclose(half[:, :200], first[:, :200], atol=1e-6)


def test_each_channel_of_stereo_is_separated_by_itself(model):
    recording, wanted = sound(700, 2), [model.of_classes(n, [n]) for n in ("dog", "rain")]
    both = model.separate(recording, RATE, wanted)
    assert both.shape == (2, 2, 700)
    for number in (0, 1):
        alone = model.separate(recording[number], RATE, wanted)
        np.testing.assert_allclose(both[:, number], alone, atol=1e-6)


def test_what_is_wrong_is_said(model):
    with pytest.raises(ValueError, match=r"class 'cat': the model has no such class; it has dog"):
        model.of_classes("cat", ["cat"])
    with pytest.raises(ValueError, match="not made of sound"):
        model.of_example("x", sound(900)[0], RATE)
    with pytest.raises(ValueError, match=r"got shape \(2,\), wanted \(3,\)"):
        model.of_vector("x", [0, 1])
    wanted = [model.of_vector("x", [0, 1, 0])]
    with pytest.raises(ValueError, match="overlap"):
        model.separate(sound(900)[0], RATE, wanted, overlap=0.6)
    with pytest.raises(ValueError, match="nothing"):
        model.separate(sound(900)[0], RATE, [])


def test_soft_tags_are_those_of_the_wanted_classes_in_the_mixture(model):
    objective = dataclasses.replace(model.objective, query=queries.Tags(Tagger()))
    extra = model.extra | {"query": {"params": {}, "extra": {}}}
    tagged = Separator(objective, model.params, CONFIG, extra=extra)
    recording = np.concatenate([sound(SIZE), np.zeros((1, SIZE), np.float32)], axis=1)
    dog, rain = (tagged.of_classes(name, [name]) for name in ("dog", "rain"))
    parts = tagged.separate(recording[0], RATE, [dog, rain])
    # Class 1 has 0.05, below the gate, everywhere; class 0 where there is sound.
    assert np.abs(parts[0, :SIZE]).max() > 0 == np.abs(parts[0, SIZE:]).max()
    assert not parts[1].any()
    probability = 1 / (1 + np.exp(5 - 100 * np.abs(recording[0, :SIZE]).max()))
    by_hand = tagged.of_vector("dog", [probability, 0, 0])
    want = tagged.separate(recording[0, :SIZE], RATE, [by_hand])
    np.testing.assert_allclose(parts[:1, :SIZE], want, atol=1e-5)


def test_an_example_is_the_mean_over_its_loud_segments(model):
    objective = dataclasses.replace(model.objective, query=queries.Tags(Tagger()))
    extra = model.extra | {"query": {"params": {}, "extra": {}}}
    tagged = Separator(objective, model.params, CONFIG, extra=extra)
    quiet = np.full(300, 0.01, np.float32)
    example = np.concatenate(
        [quiet, np.full(SIZE, 0.03, np.float32), quiet, np.full(SIZE, 0.08, np.float32)]
    )
    found = tagged.of_example("x", example, RATE).condition
    want = np.mean([1 / (1 + np.exp(5 - 100 * peak)) for peak in (0.03, 0.08)])
    np.testing.assert_allclose(found[0], want, atol=1e-5)
    assert not tagged.of_example("x", example, RATE).by_tags
    with pytest.raises(ValueError, match="silent"):
        tagged.of_example("x", quiet, RATE)


def test_nodes_of_an_ontology_stand_for_what_is_below_them(tmp_path):
    tree = {
        "a": ("Animal", ["b", "c"]),
        "b": ("dog", ["d"]),
        "c": ("Wild", ["d"]),
        "d": ("Growl", []),
        "e": ("rain", []),
    }
    rows = [dict(id=one, name=name, child_ids=below) for one, (name, below) in tree.items()]
    (tmp_path / "ontology.json").write_text(json.dumps(rows))
    ontology = hierarchy.read(tmp_path / "ontology.json")
    labels = ("dog", "rain", "Growl")
    assert families(ontology, labels, 1) == {"Animal": ["dog", "Growl"], "rain": ["rain"]}
    assert families(ontology, labels, 2) == {"dog": ["dog", "Growl"], "Wild": ["Growl"]}
    assert families(ontology, labels, 3) == {"Growl": ["Growl"]}
    assert families(ontology, labels)["Wild"] == ["Growl"]


def test_names_of_files_differ():
    assert separate.file_names(["a/b", "a:b", "rest", "A_b", "…"]) == [
        "a_b.wav", "a_b_2.wav", "rest_2.wav", "A_b_3.wav", "part.wav",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("separator") / "model"
    exported.write(out, model.params, CONFIG)
    return out


def test_the_parts_and_the_rest_are_the_recording(folder, model, tmp_path):
    recording = sound(2500, 2)
    soundfile.write(tmp_path / "two.wav", recording.T, RATE, "FLOAT")
    arguments = ["--checkpoint", str(folder), "--output", str(tmp_path / "out")]
    arguments += [str(tmp_path / "two.wav"), "--classes", "dog", "Tea, kettle", "--overlap", "0.25"]
    separate.main(arguments)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "Tea_ kettle.wav", "dog.wav", "rest.wav", "separated.json",
    ]  # fmt: skip
    found = [
        soundfile.read(out / f"{n}.wav", dtype="float32")[0].T
        for n in ("dog", "Tea_ kettle", "rest")
    ]
    np.testing.assert_allclose(sum(found), recording, atol=1e-6)
    wanted = [model.of_classes("dog", ["dog"])]
    want = model.separate(recording, RATE, wanted, overlap=0.25)[0]
    np.testing.assert_allclose(found[0], want, atol=1e-6)
    report = json.loads((out / "separated.json").read_text())
    assert report["seconds"] == 2.5 and report["channels"] == 2
    level = 10 * np.log10((found[2] ** 2).sum() / (recording**2).sum())
    assert report["rest_db"] == pytest.approx(level, abs=1e-3)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "wanted one of them"),
        (["--words", "a dog"], "wanted both or neither"),
        (["--level", "1"], "--ontology"),
        (["--classes", "dog", "--overlap", "0.7"], "wanted 0 to 0.5"),
    ],
)
def test_options_that_contradict_are_refused(more, said, capsys):
    with pytest.raises(SystemExit):
        separate.main(["--checkpoint", "RUN", "--output", "DIR", "x.wav", *more])
    assert said in capsys.readouterr().err


def test_pieces_are_decoded_channel_by_channel(tmp_path, monkeypatch):
    recording = sound(950, 2)
    soundfile.write(tmp_path / "two.wav", recording.T, RATE, "FLOAT")
    monkeypatch.setattr(separate, "PIECE", 0.3)
    pieces = list(separate.recording(str(tmp_path / "two.wav"), RATE, 2))
    assert [piece.shape for piece in pieces] == [(2, 300)] * 3 + [(2, 50)]
    np.testing.assert_array_equal(np.concatenate(pieces, 1), recording)


def test_windows_end_with_the_recording():
    ends = []
    for samples in (1, 399, 400, 401, 800, 801):
        found = list(separator._windows([sound(samples)], 400, 300))
        ends.append([count for _, count, _ in found])
        assert [last for *_, last in found] == [False] * (len(found) - 1) + [True]
    assert ends == [[1], [399], [400], [400, 101], [400, 400, 200], [400, 400, 201]]


def test_an_anchor_of_the_run_says_how_long_a_segment_is(model):
    assert model.samples == 400
    other = dataclasses.replace(model.objective, anchor=anchors.Loudest(frames=20, hop=10))
    assert Separator(other, model.params, CONFIG).samples == 200
    plain = Separator(dataclasses.replace(model.objective, anchor=None), model.params, {})
    assert plain.samples == 2000


def test_parts_replace_no_recording_and_stand_beside_no_others(folder, tmp_path):
    soundfile.write(tmp_path / "dog.wav", sound(900).T, RATE, "FLOAT")
    before = (tmp_path / "dog.wav").read_bytes()
    arguments = ["--checkpoint", str(folder), str(tmp_path / "dog.wav"), "--classes", "dog"]
    with pytest.raises(ValueError, match=r"dog\.wav: a part of that name would replace it"):
        separate.main([*arguments, "--output", str(tmp_path)])
    assert (tmp_path / "dog.wav").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["dog.wav"]
    out = tmp_path / "out"
    separate.main([*arguments, "--output", str(out)])
    separate.main([*arguments, "--output", str(out)])
    with pytest.raises(ValueError, match=r"it has dog\.wav of an earlier run"):
        separate.main([*arguments[:-1], "rain", "--output", str(out)])
    (out / "separated.json").write_text('{"parts": 3}')
    with pytest.raises(ValueError, match=r"separated\.json: got"):
        separate.main([*arguments, "--output", str(out)])


def test_a_tagger_of_another_rate_is_refused(model):
    class Other(Tagger):
        frontend = types.SimpleNamespace(rate=2 * RATE)

    blank = {"audio": np.zeros((1, SIZE), np.float32), "length": np.full(1, SIZE, np.int32)}
    for part in (dict(query=queries.Tags(Other())), dict(anchor=anchors.Heard(40, 10, Other()))):
        objective = dataclasses.replace(model.objective, **part)
        with pytest.raises(ValueError, match="it hears sound at 2000 Hz, the separator at 1000"):
            objective.init(jax.random.key(0), blank)
