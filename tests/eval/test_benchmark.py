"""Every task scores 1 for perfect vectors and chance for random and for constant ones; the command."""

import functools
import json
import pathlib

import encoders
import fsd50k
import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score

from ssl_audio.data import derived
from ssl_audio.data.scenes import Scenes
from ssl_audio.data.source import Manifest
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.eval import (
    base,
    benchmark,
    benchmark_table,
    protocols,
    retrieval,
    robustness,
    tasks,
    word_protocols,
)
from ssl_audio.eval.listening import Deaf, Listener
from ssl_audio.eval.probe import Probe
from ssl_audio.storage import exported

CLASSES = ("bark", "rain", "clock_tick")


def wave(path, seconds=0.2, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, noise, rate)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder with a small set in the layout of every one that `benchmark` knows."""
    made = tmp_path_factory.mktemp("sets")
    for name, classes in (("esc10", 10), ("esc50", 50)):
        rows = ["filename,fold,target,category,esc10"]
        for i in range({10: 10, 50: 7}[classes] * classes):
            rows.append(f"{i}.wav,{i // classes % 5 + 1},{i % classes},class {i % classes},True")
        (made / name).mkdir()
        (made / name / "meta.csv").write_text("\n".join(rows))
    for digit, speaker, take in np.ndindex(10, 6, 6):
        (made / "fsdd").mkdir(exist_ok=True)
        wave(made / "fsdd" / f"{digit}_{'abcdef'[speaker]}_{take}.wav", 0.01)
    for i in range(100):
        (made / "urbansound8k" / f"fold{i // 10 + 1}").mkdir(parents=True, exist_ok=True)
    rows = [f"{i}.wav,{i % 5},{i // 25 + 1},kind {i % 5}" for i in range(100)]
    (made / "urbansound8k/UrbanSound8K.csv").write_text(
        "\n".join(["slice_file_name,classID,fold,class", *rows])
    )
    words = made / "speech_commands"
    for i in range(40):
        wave(words / f"{CLASSES[i % 2]}/{i}_nohash_0.wav", 0.01)
    lists = [f"{CLASSES[i % 2]}/{i}_nohash_0.wav\n" for i in range(20)]
    (words / "testing_list.txt").write_text("".join(lists))
    (words / "validation_list.txt").write_text(f"{CLASSES[0]}/20_nohash_0.wav\n")
    plain = [n for n, d in tasks.SETS.items() if d.folders and not d.options]
    for name in plain:
        rows = []
        for i in range(60):
            row = dict(path=f"{i}.wav")
            if tasks.SETS[name].group in ("retrieval", "order", "questions"):
                row |= dict(text=f"sound number {i}", negatives=[f"no {i}", f"not {i}", "none"])
            else:
                row |= dict(label=CLASSES[i % 3], fold=i % 5 + 1)
            rows.append(json.dumps(row))
        (made / f"{name}.jsonl").write_text("\n".join(rows))
    some = [name for name in fsd50k.VOCABULARY if name not in fsd50k.CHILDREN]
    clips = {part: {f"{first + i}": (0.1, some[i % len(some)], part_split)
             for i in range(count)} for part, first, count, part_split in
             (("dev", 0, 80, "train"), ("eval", 100, 40, ""))}  # fmt: skip
    fsd50k.tables(made / "fsd50k", clips)
    wave(made / "fsd50k/FSD50K.dev_audio/0.wav")
    wave(made / "fsd50k/FSD50K.eval_audio/100.wav")
    return made


@pytest.fixture(scope="module", autouse=True)
def silent(root):
    """Tasks on made-up files ask for their number and labels only, except scenes of ESC-10."""
    for i in range(100):
        wave(root / f"esc10/audio/{i}.wav", 0.3)


# Those of sound that a model makes have scales of their own: test_benchmark_sounds.py.
SHARES = [name for name, task in tasks.TASKS.items() if task.protocol.best == 1]


@pytest.mark.parametrize("name", SHARES)
def test_perfect_random_and_constant_vectors_score_one_chance_and_chance(name, root, monkeypatch):
    monkeypatch.setattr(tasks, "SCENES", {**tasks.SCENES, "size": 24, "seconds": 3.0})
    monkeypatch.setattr(protocols, "QUERIES", 60)
    monkeypatch.setattr(retrieval, "modality_gap", lambda *_: {})  # of no control, and slow
    monkeypatch.setattr(protocols, "Probe", functools.partial(Probe, choices=(1.0, 50.0)))
    task = tasks.TASKS[name]
    source = tasks.source(task.data, str(root), 16_000)
    case = task.protocol.case(source, Deaf(), 0)
    perfect = task.protocol.score(task.protocol.controlled(case, "perfect"), 0)
    assert perfect.value == pytest.approx(1, abs=1e-6) and 0 <= perfect.chance < 0.6
    assert perfect.interval[0] <= perfect.value <= perfect.interval[1]
    constant = task.protocol.score(task.protocol.controlled(case, "constant"), 0)
    # Neighbours that are all alike vote by their order, which is none.
    assert constant.value == pytest.approx(constant.chance, abs=0.1 if "knn" in name else 1e-6)
    drawn = [
        task.protocol.score(task.protocol.controlled(case, "random", seed), 0) for seed in range(4)
    ]
    mean = np.mean([outcome.value for outcome in drawn])
    error = np.sqrt(0.25 / min(outcome.count for outcome in drawn) / len(drawn))
    assert abs(mean - constant.chance) < 0.03 + 2 * error, (mean, constant.chance)


def test_every_group_of_the_survey_has_a_task():
    assert {task.group for task in tasks.TASKS.values()} == {
        "sound events", "scenes", "voice", "music", "speech", "retrieval", "order", "detection",
        "questions", "health", "grounding", "separation", "generation",
        "captioning",
    }  # fmt: skip


def test_what_is_missing_is_said_and_where_it_comes_from():
    record = benchmark.run(tasks.TASKS["esc50/linear"], Deaf(), None)
    assert "esc50" in record["absent"] and "github.com/karolpiczak" in record["absent"]
    assert "value" not in record
    page = benchmark_table.text([record | dict(name="a", seed=0, most=0)])
    assert "Data that are not there" in page and "karolpiczak" in page


def test_tasks_are_chosen_by_name_group_set_and_pattern():
    assert [t.name for t in tasks.chosen("esc10/linear")] == ["esc10/linear"]
    assert {t.group for t in tasks.chosen("music,detection")} == {"music", "detection"}
    assert len(tasks.chosen("all")) == len(tasks.TASKS) > 60
    assert {t.name for t in tasks.chosen("digits")} == {t.name for t in tasks.chosen("digits/*")}
    with pytest.raises(ValueError, match="no task is called 'esc11'.*sound events"):
        tasks.chosen("esc11")


@pytest.mark.parametrize(
    ("similar", "group", "text", "audio"),
    [
        ([[2, 1], [0, 3]], 1, 1, 1),
        ([[2, 3], [0, 4]], 0, 0, 1),
        ([[1, 0], [3, 2]], 0, 0, 0),
        ([[1, 1], [1, 1]], 1 / 6, 1 / 4, 1 / 4),
        ([[1, 1], [0, 1]], 1 / 3, 1 / 2, 1 / 2),
    ],
)
def test_the_group_score_counts_four_comparisons(similar, group, text, audio):
    found = word_protocols._compared(np.array(similar, float))
    np.testing.assert_allclose(found, [group, text, audio])


def test_recall_of_equal_scores_is_chance_and_else_that_of_ranks():
    rng = np.random.default_rng(0)
    scores, own = rng.normal(size=(50, 20)), rng.integers(20, size=50)
    found = retrieval.recall(scores, own, 5)
    np.testing.assert_array_equal(found, retrieval.ranks(scores, own) < 5)
    np.testing.assert_allclose(retrieval.recall(np.zeros((3, 20)), own[:3], 5), 0.25)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    drawn = rng.random((400, 60)) < 0.8
    inside = [low <= 0.8 <= high for low, high in (protocols.wilson(x.mean(), 60) for x in drawn)]
    assert 0.92 <= np.mean(inside) <= 0.98
    scores, hits = rng.normal(size=(150, 80)), 0
    for x in scores:  # the mean of 80 normal values, in pairs that are equal
        pairs = np.repeat(x[:40], 2)
        low, high = protocols.halves(lambda r, p=pairs: float(p[r].mean()), np.arange(80) // 2, 0)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 150 <= 1.0


def test_lookup_is_the_map_of_other_folds():
    y, fold = np.repeat(np.arange(3), 8), np.tile(np.arange(4), 6)
    x = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    case = protocols.Case({"clips": x}, {}, dict(y=y, fold=fold))
    z = (x - x.mean(0)) / x.std(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = [
        average_precision_score(y[fold != fold[i]] == y[i], z[fold != fold[i]] @ z[i])
        for i in range(24)
    ]
    assert protocols.Lookup().score(case, 0).value == pytest.approx(np.mean(expected), abs=1e-4)


def test_chance_of_uneven_classes_is_that_of_the_most_frequent_training_class():
    y, fold = np.repeat([0, 1, 2], [9, 30, 6]), np.tile(np.arange(3), 15)
    split = base.Split({str(k): fold == k for k in range(3)}, fold)
    found = protocols.probed(Probe(), np.ones((45, 4), np.float32), y, split, 0)
    assert found.value == pytest.approx(30 / 45) and found.chance == pytest.approx(30 / 45)
    hot = np.eye(3)[y].astype(np.float32)
    found = protocols.probed(Probe(), np.ones((45, 4), np.float32), hot, split, 0)
    assert found.value == pytest.approx(1 / 3) and found.chance == pytest.approx(1 / 3)


def test_health_of_even_and_of_collapsed_vectors():
    x = np.random.default_rng(0).normal(size=(400, 16))
    even, flat = robustness.health(x), robustness.health(np.outer(x[:, 0], np.ones(16)))
    assert even["effective_rank"] > 15 and flat["effective_rank"] == pytest.approx(1, abs=1e-6)
    assert even["uniformity"] < -3 and flat["uniformity"] > -1


def test_fewer_clips_keep_the_shares_of_classes_and_folds():
    some = derived.Fewer(Synthetic(size=600, seconds=0.1), 120, seed=3)
    metas = [some.meta(i) for i in range(len(some))]
    assert len(some) == 120 and len({m["id"] for m in metas}) == 120
    counts = np.zeros((12, 6), int)
    for m in metas:
        counts[m["label"], m["fold"]] += 1
    assert (counts[:, 1:] == 2).all()
    assert some[5]["id"] == metas[5]["id"]


def test_a_pair_has_the_same_sounds_in_either_order():
    pairs = derived.Pairs(Synthetic(size=60, seconds=0.5, rate=8000), size=6)
    for j in range(6):
        one, other = pairs[2 * j], pairs[2 * j + 1]
        first, second = one["text"].split(" before ")
        assert other["text"] == f"{second} before {first}" and one["label"] != other["label"]
        assert len(one["audio"]) == len(other["audio"]) and one["fold"] == other["fold"]
        np.testing.assert_array_equal(one["audio"][:4000], other["audio"][-4000:])


def test_changes_do_what_they_say():
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, 16_000).astype(np.float32)
    noisy = derived.Noisy(10.0)(audio, 16_000, rng)
    added = np.mean((noisy - audio) ** 2) / np.mean(audio**2)
    assert 10 * np.log10(added) == pytest.approx(-10, abs=0.1)
    np.testing.assert_allclose(derived.Softer(20.0)(audio, 16_000, rng), audio / 10, rtol=1e-6)
    part = derived.Part(0.25)(audio, 16_000, rng)
    assert len(part) == 4000
    assert any(np.array_equal(audio[i : i + 4000], part) for i in range(12_001))


def test_counted_sounds_can_be_counted():
    heard = derived.Counted(size=25, rate=8000)
    for i in range(25):
        example = heard[i]
        level = np.convolve(np.abs(example["audio"]), np.ones(800) / 800, "same")
        on = level > 0.25 * level.max()
        assert np.sum(np.diff(on.astype(int)) == 1) + on[0] == example["label"] + 1


def test_the_command_scores_runs_resumes_and_says_what_is_missing(tmp_path, root, capsys):
    model = encoders.encoder(frames=24)
    for name in ("one", "two"):
        exported.write(tmp_path / name, model.params, model.config)
    places = [str(tmp_path / name) for name in ("one", "two")]
    asked = ["--tasks", "digits/linear,esc10/words", "--root", str(root)]
    command = ["--checkpoint", *places, *asked, "--output", str(tmp_path / "out"), "--most", "40"]
    first = benchmark.main([*command, "--controls"])
    page = (tmp_path / "out/table.md").read_text()
    assert page in capsys.readouterr().out
    assert "| one | two | perfect | random | constant |" in page and "| - | - | 1.000" in page
    assert (tmp_path / "out/figure.png").read_bytes()[:4] == b"\x89PNG"
    scored = {r["task"] for r in first if r["name"] == "one" and "value" in r}
    assert scored == {"digits/linear"}
    assert all(0 <= r["low"] <= r["value"] <= r["high"] <= 1 for r in first if "value" in r)
    (tmp_path / "one/model.safetensors").unlink()  # what is known is not asked again
    results = pathlib.Path(tmp_path / "out/results.jsonl").read_text()
    again = benchmark.main(["--checkpoint", places[1], *asked, "--output", str(tmp_path / "out"),
                            "--most", "40", "--controls"])  # fmt: skip
    assert [r["value"] for r in again if "value" in r] == [
        r["value"] for r in first if "value" in r and r["name"] != "one"
    ]
    assert pathlib.Path(tmp_path / "out/results.jsonl").read_text() == results


def test_moments_are_means_of_the_columns_within_and_of_the_nearest_where_there_is_none():
    model = encoders.encoder(frames=24)  # columns of 80 ms
    source = Scenes(Synthetic(size=12, seconds=0.3), size=2, seconds=1.0, longest=0.3)
    clips, moments, x = Listener(model).moments(source, 0.2)
    assert clips.tolist() == [0] * 5 + [1] * 5 and moments.tolist() == [0, 1, 2, 3, 4] * 2
    features, times = model.frames(source[1]["audio"], 16_000)
    inside = (times >= 400) & (times < 600)
    np.testing.assert_allclose(x[7], features[inside].mean(axis=0), rtol=1e-6)
    *_, fine = Listener(model).moments(source, 0.02)
    nearest = np.abs(times - 410).argmin()
    np.testing.assert_array_equal(fine[50 + 20], features[nearest])


def test_questions_need_wrong_answers(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"path": "a.wav", "text": "yes"}\n')
    with pytest.raises(ValueError, match="has no `negatives`"):
        word_protocols.Choice().case(Manifest(str(tmp_path / "q.jsonl")), Deaf(), 0)


def test_names_of_checkpoints_tell_them_apart():
    assert benchmark.opened_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert benchmark.opened_names(["x/run", "y/run"]) == ["x/run", "y/run"]


def test_the_interval_of_pairs_is_that_of_their_clips():
    y, inside, pairs = np.repeat(np.arange(8), 5), 0, 40
    for seed in range(pairs):
        x = np.random.default_rng(seed).normal(size=(40, 4)).astype(np.float32)
        found = protocols.Same(pairs=600).score(protocols.Case({"clips": x}, {}, dict(y=y)), seed)
        inside += found.interval[0] <= 0.5 <= found.interval[1]
    assert inside >= 0.85 * pairs, inside


def test_a_set_that_cannot_be_scored_is_said_and_others_are_scored(tmp_path):
    (tmp_path / "nsynth.csv").write_text("path,label\na.wav,a\nb.wav,b\nc.wav,")
    wave(tmp_path / "gtzan/rock/a.wav")
    argv = ["--controls", "--root", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="6 of 9 not scored: perfect, nsynth/linear"):
        benchmark.main([*argv, "--tasks", "nsynth,gtzan/words,notes", "--most", "60"])
    lines = (tmp_path / "out/results.jsonl").read_text().splitlines()
    by = {(r["name"], r["task"]): r for r in map(json.loads, lines)}
    assert "c.wav and 0 others have no label" in by["perfect", "nsynth/linear"]["failed"]
    assert "nothing to tell apart" in by["perfect", "gtzan/words"]["failed"]
    assert by["perfect", "notes/linear"]["value"] == pytest.approx(1)
    with pytest.raises(SystemExit, match="wanted two or more"):
        benchmark.main([*argv, "--tasks", "synthetic/noise", "--most", "1"])
