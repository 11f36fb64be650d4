import dataclasses
import itertools
import logging

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data import entries
from ssl_audio.data.compose import Several
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.reading import examples
from ssl_audio.data.source import Folder, SourceInfo
from ssl_audio.data.synthetic import Synthetic


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Clip i is 100 * (i + 1) samples of the number i + 1; every third label is 1."""

    size: int = 10
    rate: int = 16_000

    @property
    def info(self):
        return SourceInfo("numbers", ("a", "b"))

    def __len__(self):
        return self.size

    def meta(self, i):
        return {"rate": self.rate, "id": f"n{i}", "label": int(i % 3 == 0)}

    def __getitem__(self, i):
        return {"audio": np.full(100 * (i + 1), i + 1, np.float32), **self.meta(i)}


def make(**options):
    """Return a pipeline of sound, and of labels if there are `classes`."""
    names = [f.name for f in dataclasses.fields(entries.Audio)]
    audio = {"samples": 350} | {k: options.pop(k) for k in names if k in options}
    made = {"audio": entries.Audio(**audio)}
    if "classes" in options:
        made["label"] = entries.Labels(options.pop("classes"))
    defaults = dict(sources={"n": Numbers()}, batch_size=4, entries=made, threads=2)
    return Pipeline(**{**defaults, **options})


def take(iterator, count):
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


RICH = dict(
    sources={"short": Synthetic(30, seconds=0.1), "long": Synthetic(20, seconds=0.3, seed=1)},
    weights={"short": 1.0, "long": 3.0},
    batch_size=8,
    samples=3200,
    fill="join",
    mixup=0.5,
    classes=12,
)


def test_batches_are_what_spec_says():
    pipeline = make(**RICH)
    (batch,) = take(pipeline.batches(), 1)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == pipeline.spec()
    assert "label" not in make().spec()


def test_an_epoch_holds_every_clip_once_cropped_and_padded():
    pipeline = make(batch_size=5, crop="first")
    assert pipeline.clips == 10 and pipeline.epoch_steps == 2
    epoch = take(pipeline.batches(), 2)
    index = np.concatenate([batch["index"] for batch in epoch])
    assert sorted(index) == list(range(10)) and list(index) != list(range(10))
    for batch in epoch:
        for row, i in enumerate(batch["index"]):
            wanted = np.zeros(350)
            wanted[: 100 * (i + 1)] = i + 1
            np.testing.assert_array_equal(batch["audio"][row], wanted)
            assert batch["length"][row] == min(350, 100 * (i + 1))
    assert pipeline.ids(epoch[0]["index"])[0] == f"n:n{epoch[0]['index'][0]}"


@pytest.mark.parametrize("start", [1, 5])
def test_resuming_at_any_step_gives_the_same_batches(start):
    pipeline = make(**RICH)
    same(take(pipeline.batches(start), 3), take(pipeline.batches(), start + 3)[start:])


@pytest.mark.parametrize("shards", [2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_number_of_hosts(shards):
    pipeline = make(**RICH)
    whole = take(pipeline.batches(2), 2)
    parts = [take(pipeline.batches(2, shard=p, shards=shards), 2) for p in range(shards)]
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            for p in range(shards):
                np.testing.assert_array_equal(
                    parts[p][step][key], value[p * 8 // shards : (p + 1) * 8 // shards]
                )


def test_neither_threads_nor_worker_processes_change_the_batches():
    pipeline = make(**RICH)
    wanted = take(pipeline.batches(1), 2)
    same(take(dataclasses.replace(pipeline, threads=0).batches(1), 2), wanted)
    same(take(dataclasses.replace(pipeline, workers=2).batches(1), 2), wanted)


def test_the_seed_changes_everything():
    one, two = (take(make(**RICH, seed=s).batches(), 1)[0] for s in (0, 1))
    assert (one["index"] != two["index"]).any()
    assert (one["length"] == 3200).all() and not (one["audio"] == two["audio"]).all(1).any()


def test_short_clips_are_repeated_or_joined_with_others_of_their_source():
    (batch,) = take(make(fill="repeat", samples=1000, batch_size=10).batches(), 1)
    np.testing.assert_array_equal(batch["audio"], np.tile(batch["index"] + 1, (1000, 1)).T)
    sources = {"a": Numbers(3), "b": Numbers(2)}
    pipeline = make(sources=sources, fill="join", samples=1000, batch_size=5)
    (batch,) = take(pipeline.batches(), 1)
    assert (batch["length"] == 1000).all() and (batch["audio"] > 0).all()
    for audio, i in zip(batch["audio"], batch["index"], strict=True):
        own = i + 1 if i < 3 else i - 2
        assert (audio[: 100 * own] == own).all()
        assert audio.max() <= (3 if i < 3 else 2)


def test_speed_and_gain_vary_within_their_bounds():
    one = dict(sources={"n": Numbers(1)}, batch_size=200, samples=200)  # a hundred ones
    (batch,) = take(make(**one, speed=0.2).batches(), 1)
    assert 83 <= batch["length"].min() < 88 and 115 < batch["length"].max() <= 125
    (batch,) = take(make(**one, gain=6.0).batches(), 1)
    db = 20 * np.log10(batch["audio"].max(1))
    assert -6.001 < db.min() < -5 and 5 < db.max() < 6.001


def test_mixup_mixes_sound_and_labels_in_the_same_proportion():
    @dataclasses.dataclass(frozen=True)
    class Signs(Numbers):
        def __getitem__(self, i):
            sign = (
                np.where(np.arange(100) < 50, 1.0, -1.0)
                if i % 3
                else np.cos(np.arange(100) * np.pi)
            )
            return {"audio": sign.astype(np.float32), **self.meta(i)}

    pipeline = make(sources={"n": Signs(6)}, batch_size=48, samples=120, mixup=1.0, classes=2)
    (batch,) = take(pipeline.batches(), 1)
    np.testing.assert_allclose(batch["label"].sum(1), 1.0, rtol=1e-6)
    alternating = np.cos(np.arange(100) * np.pi)
    share = batch["audio"][:, :100] @ alternating / 100
    np.testing.assert_allclose(share, batch["label"][:, 1], atol=1e-5)
    assert not batch["audio"][:, 100:].any() and (batch["length"] == 100).all()
    mixed = share[(share > 0.01) & (share < 0.99)]
    assert mixed.size > 10 and abs(mixed.mean() - 0.5) < 0.1 and mixed.std() < 0.2


def test_mixup_has_its_probability():
    for wanted in (0.0, 0.25):
        pipeline = make(mixup=wanted, batch_size=400, classes=2)
        (batch,) = take(pipeline.batches(), 1)
        mixed = np.abs(batch["audio"]).max(1) < 1e-4  # what is left of constant clips
        assert mixed.mean() == pytest.approx(wanted, abs=0.06)


def test_the_order_in_which_sources_are_named_does_not_matter():
    one = {"a": Numbers(4), "b": Numbers(8)}
    two = {"b": Numbers(8), "a": Numbers(4)}
    same(take(make(sources=one).batches(), 3), take(make(sources=two).batches(), 3))


def test_a_constant_partner_of_any_length_adds_nothing():
    (batch,) = take(make(mixup=1.0, batch_size=20).batches(), 1)
    np.testing.assert_allclose(batch["audio"], 0.0, atol=1e-5)


def test_labels_become_multi_hot():
    (batch,) = take(make(classes=3, batch_size=10).batches(), 1)
    np.testing.assert_array_equal(batch["label"].argmax(1), batch["index"] % 3 == 0)
    np.testing.assert_array_equal(batch["label"].sum(1), 1)
    with pytest.raises(ValueError, match=r"clip n\d: its label is 1, with classes=1"):
        take(make(classes=1, batch_size=10).batches(), 1)


@dataclasses.dataclass(frozen=True)
class SomeLabelled(Numbers):
    """Numbers, of which those that three does not divide have no label."""

    def meta(self, i):
        return {k: v for k, v in super().meta(i).items() if k != "label" or i % 3 == 0}


def test_unlabelled_clips_are_allowed_among_labelled_ones():
    audio = entries.Audio(350)
    made = dict(sources={"n": SomeLabelled()}, batch_size=10)
    label = entries.Labels(2, unlabelled=True)
    pipeline = make(**made, entries={"audio": audio, "label": label})
    (batch,) = take(pipeline.batches(), 1)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == pipeline.spec()
    np.testing.assert_array_equal(batch["labelled"], batch["index"] % 3 == 0)
    np.testing.assert_array_equal(batch["label"][:, 1], batch["labelled"])
    with pytest.raises(ValueError, match="its label is None, .*unlabelled=True allows"):
        take(make(**made, entries={"audio": audio, "label": entries.Labels(2)}).batches(), 1)
    mixed = make(**made, mixup=1.0, entries={"audio": audio, "label": label})
    (batch,) = take(mixed.batches(), 1)
    assert 0 < batch["labelled"].sum() < 10 and set(batch["labelled"]) == {0.0, 1.0}


@dataclasses.dataclass(frozen=True)
class Picture(entries.Entry):
    """A picture [size, size, 3] of each clip, as a source may give, with one random flip."""

    size: int = 2

    def spec(self):
        return {"image": ((self.size, self.size, 3), np.dtype(np.uint8))}

    def draw(self, example, rng):
        image = np.full((self.size, self.size, 3), example["image"], np.uint8)
        image[0] += np.uint8(100 * rng.integers(2))
        return {"image": image}


@dataclasses.dataclass(frozen=True)
class Pictured(Numbers):
    def __getitem__(self, i):
        return {**super().__getitem__(i), "image": i}


def test_an_entry_of_another_package_is_one_more_class():
    kinds = {
        "audio": {"kind": "entries:Audio", "samples": 64},
        "seen": {"kind": f"{__name__}:Picture", "size": 4},
    }
    options = {
        "kind": "pipeline",
        "sources": {"n": {"kind": f"{__name__}:Pictured"}},
        "batch_size": 20,
    }
    pipeline = config.build({**options, "entries": kinds}, "data")
    (batch,) = take(pipeline.batches(), 1)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == pipeline.spec()
    np.testing.assert_array_equal(batch["image"][:, 1, 0, 0], batch["index"])
    assert set(batch["image"][:, 0, 0, 0] - batch["index"]) == {0, 100}
    same(take(pipeline.batches(1), 1), take(pipeline.batches(), 2)[1:])
    with pytest.raises(ValueError, match="mixup: Picture cannot be mixed"):
        dataclasses.replace(pipeline, mixup=0.5)
    with pytest.raises(ValueError, match="compose: a composed clip has no image"):
        dataclasses.replace(pipeline, compose=Several())


def test_weights_and_balance_reach_the_batches():
    sources = {"a": Numbers(4), "b": Numbers(8)}
    pipeline = make(sources=sources, weights={"a": 3, "b": 1}, batch_size=64)
    index = np.concatenate([b["index"] for b in take(pipeline.batches(), 16)])
    assert np.mean(index < 4) == 0.75
    pipeline = make(sources=sources, weights={"a": 3, "b": 1}, balanced=True, classes=2)
    pipeline = dataclasses.replace(pipeline, batch_size=512)
    (batch,) = take(pipeline.batches(), 1)
    assert np.mean(batch["index"] < 4) == pytest.approx(0.75, abs=0.06)
    assert batch["label"][:, 1].mean() == pytest.approx(0.5, abs=0.08)


def test_faulty_settings_are_refused():
    for options, message in [
        (dict(crop="last"), "crop: got 'last'"),
        (dict(sources={}), "sources: none"),
        (dict(weights={"m": 1.0}), r"weights: for \['m'\], but the sources are \['n'\]"),
        (dict(entries={}), "entries: none"),
        (dict(entries={"a": entries.Audio(4), "b": entries.Audio(4)}), "b and a both give 'audio'"),
        (dict(classes=0), "classes: wanted at least 1"),
        (dict(mixup=1.5), "mixup: wanted 0 to 1"),
        (dict(speed=1.0), "speed, gain: wanted 0 to 1, 0 to 100 dB; got 1, 0"),
        (dict(samples=0), "samples: wanted at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(**options)
    with pytest.raises(ValueError, match="batch_size 4 cannot be divided over 3"):
        make().batches(shards=3)
    with pytest.raises(ValueError, match="sources.n: its rate is 8000 Hz, wanted .*16000 Hz"):
        make(sources={"n": Numbers(rate=8000)}).batches()


def test_config_builds_a_pipeline():
    pipeline = config.build(
        {
            "kind": "pipeline",
            "sources": {"toy": {"kind": "synthetic", "size": 24, "seconds": 0.1}},
            "batch_size": 2,
            "entries": {"audio": {"kind": "entries:Audio", "samples": 800}},
        },
        "data",
    )
    assert take(pipeline.batches(), 1)[0]["audio"].shape == (2, 800)
    assert "toy: synthetic, 24 clips, 12 classes" in pipeline.describe()
    assert "12 steps per epoch" in pipeline.describe()


BAD = {"cut.ogg", "cut.flac", "empty.wav", "text.wav", "nan.wav"}


@pytest.fixture
def faulty(tmp_path):
    """Return a folder of 16 good clips, odd but usable ones among them, and five bad ones."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    for i in range(13):
        soundfile.write(tmp_path / f"{i:02d}.wav", noise[: 1600 + i], 16_000)
    soundfile.write(tmp_path / "wide.flac", np.stack([noise] * 8, 1), 96_000)
    soundfile.write(tmp_path / "blip.wav", noise[:160], 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16_000)
    for name in ("cut.ogg", "cut.flac"):
        soundfile.write(tmp_path / name, noise, 16_000)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not sound\n" * 100)
    nan = np.full(100, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", nan, 16_000, subtype="FLOAT")
    return Folder(str(tmp_path))


def test_bad_files_are_named_once_replaced_and_counted(faulty, caplog):
    pipeline = make(sources={"f": faulty}, batch_size=7, samples=1600, max_bad_share=0.3)
    with caplog.at_level(logging.WARNING):
        batches = take(pipeline.batches(), 9)  # three passes
    assert set(pipeline.bad) == {f"f:{name}" for name in BAD}
    assert sorted(record.args[0] for record in caplog.records) == sorted(pipeline.bad)
    assert "truncated" in pipeline.bad["f:cut.ogg"] and "NaN" in pipeline.bad["f:nan.wav"]
    used = set(pipeline.ids(np.concatenate([batch["index"] for batch in batches])))
    assert used == {f"f:{faulty.meta(i)['id']}" for i in range(len(faulty))} - set(pipeline.bad)
    assert np.isfinite([batch["audio"] for batch in batches]).all()
    again = make(sources={"f": faulty}, batch_size=7, samples=1600, max_bad_share=0.3, threads=0)
    same(take(again.batches(4), 5), batches[4:])


def test_too_many_bad_files_stop_the_run(faulty):
    pipeline = make(sources={"f": faulty}, batch_size=7, samples=1600, max_bad_share=0.2)
    with pytest.raises(ValueError, match=r"5 of 21 clips could not be read, .*=0.2: .*Repair"):
        take(pipeline.batches(), 3)
    strict = make(sources={"f": faulty}, batch_size=21, samples=1600, max_bad_share=0.0)
    with pytest.raises(ValueError, match="1 of 21 clips"):
        take(strict.batches(), 1)


def test_a_folder_of_nothing_but_bad_files_stops_at_once(tmp_path):
    (tmp_path / "a.wav").write_text("nothing")
    pipeline = make(sources={"f": Folder(str(tmp_path))}, max_bad_share=1.0)
    with pytest.raises(ValueError, match=r"20 clips drawn .*a\.wav: unreadable"):
        take(pipeline.batches(), 1)


def test_one_bad_file_in_a_small_folder_is_tolerated(tmp_path):
    soundfile.write(tmp_path / "good.wav", np.ones(100) / 2, 16_000)
    (tmp_path / "bad.wav").touch()
    pipeline = make(sources={"f": Folder(str(tmp_path))})
    index = np.concatenate([batch["index"] for batch in take(pipeline.batches(), 5)])
    assert (index == 1).all() and list(pipeline.bad) == ["f:bad.wav"]


def test_a_programming_error_in_a_source_is_not_swallowed():
    class Broken(Numbers):
        def __getitem__(self, i):
            raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        take(make(sources={"n": Broken()}).batches(), 1)


@pytest.mark.parametrize("threads", [0, 3])
def test_examples_come_once_in_order_without_the_bad_ones(faulty, threads):
    bad = {}
    found = list(examples(faulty, threads=threads, bad=bad, max_bad_share=0.3))
    assert set(bad) == BAD and len(found) == 16
    assert [i for i, _ in found] == sorted(i for i, _ in found)
    assert all(example["id"] == faulty.meta(i)["id"] for i, example in found)
    some = examples(faulty, numbers=[3, 1], threads=threads)
    assert [i for i, _ in some] == [3, 1]
    with pytest.raises(ValueError, match="of 21 clips could not be read"):
        list(examples(faulty, threads=threads, max_bad_share=0.1))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_the_hosts_together_read_every_clip_of_an_epoch_once(shards):
    pipeline = make(sources={"a": Synthetic(32, seconds=0.01)}, batch_size=8, samples=64)
    assert pipeline.epoch_steps == 4
    for epoch in range(2):
        parts = [
            take(pipeline.batches(4 * epoch, shard=p, shards=shards), 4) for p in range(shards)
        ]
        read = np.concatenate([batch["index"] for part in parts for batch in part])
        assert sorted(read) == list(range(32))
