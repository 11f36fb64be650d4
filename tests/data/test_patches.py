"""Patches of clips: where they begin, what they hold, and that they train like any other source."""

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data.patches import Patches
from ssl_audio.data.source import Folder, Manifest, coded_labels, content, digest
from ssl_audio.data.synthetic import Synthetic

RATE = 1000
SECONDS = {"a/0.wav": 0.3, "a/1.wav": 1.0, "b/2.wav": 2.3, "b/3.wav": 5.0}
COUNTS = [1, 1, 4, 9]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder of clips of several lengths; not to be changed."""
    place = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(0)
    for name, seconds in SECONDS.items():
        (place / name).parent.mkdir(exist_ok=True)
        samples = rng.normal(0, 0.1, round(seconds * RATE))
        soundfile.write(place / name, samples, RATE, subtype="FLOAT")
    rows = ["path,start,end,labels,split,text", "b/3.wav,1,3.2,x;y,train,one", "b/2.wav,,,y,test,"]
    (place / "list.csv").write_text("\n".join(rows))
    return place


def starts(source):
    return [float(source.clips[i].start) for i in range(len(source))]


def test_each_clip_from_its_begin_to_its_end(root):
    clips = Folder(str(root), rate=RATE)
    source = Patches(clips)
    assert len(source) == sum(COUNTS) and source.rate == RATE
    want = [0, 0, 0, 0.5, 1, 1.3, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert starts(source) == pytest.approx(want, abs=1e-5)
    ids = [source.meta(i)["id"] for i in (0, 1, 2, 3)]
    assert ids == ["a/0.wav", "a/1.wav", "b/2.wav#0", "b/2.wav#0.5"]
    owner = np.repeat(np.arange(4), COUNTS)
    for i, (clip, start) in enumerate(zip(owner, want, strict=True)):
        whole, patch = clips[int(clip)], source[i]
        assert patch["label"] == whole["label"]
        first = round(start * RATE)
        np.testing.assert_array_equal(patch["audio"], whole["audio"][first : first + RATE])
    assert source.info.labels == ("a", "b") and source.info.name.endswith(", patches of 1 s")


def test_excerpts_and_what_is_known_of_them(root):
    source = Patches(Manifest(str(root / "list.csv"), rate=RATE), 0.5, 0.25)
    assert starts(source)[:8] == pytest.approx([*np.arange(1, 2.75, 0.25), 2.7], abs=1e-5)
    assert [source.meta(i)["label"] for i in (0, 7, 8)] == [(0, 1), (0, 1), (1,)]
    assert [source.meta(i)["split"] for i in (7, 8)] == ["train", "test"]
    assert [source.meta(i)["id"] for i in (0, 1)] == ["b/3.wav#1#1", "b/3.wav#1#1.25"]
    assert source.meta(3)["text"] == "one" and "text" not in source.meta(8)
    assert {len(source[i]["audio"]) for i in range(len(source))} == {500}
    codes, values = coded_labels(source)
    assert [values[c] for c in codes] == [source.meta(i)["label"] for i in range(len(source))]
    assert content(source) == digest(source.meta(i) for i in range(len(source)))


def test_batches_of_patches(root):
    settings = dict(
        kind="pipeline",
        sources=dict(a=dict(kind="patches", source=dict(kind="source:Folder", root=str(root), rate=RATE))),
        batch_size=15,
        rate=RATE,
        entries=dict(
            audio=dict(kind="entries:Audio", samples=RATE, fill="repeat"),
            label=dict(kind="entries:Labels", classes=2),
        ),
        threads=0,
    )  # fmt: skip
    pipeline = config.build(settings, "data")
    batch = next(pipeline.batches())
    assert sorted(batch["index"]) == list(range(15)) and pipeline.epoch_steps == 1
    assert (batch["length"] == RATE).all()
    short = batch["audio"][list(batch["index"]).index(0)]
    np.testing.assert_array_equal(short, np.tile(short[:300], 4)[:RATE])
    assert batch["label"].sum(axis=0).tolist() == [2, 13]


def test_what_cannot_be_cut_is_told(root, tmp_path):
    with pytest.raises(ValueError, match=r"got Synthetic, wanted one of plain files; .* crops"):
        len(Patches(Synthetic(3)))
    for seconds, hop in ((1.0, 0.0), (0.5, 1.0)):
        with pytest.raises(ValueError, match="hop, seconds: wanted more than 0"):
            Patches(Folder(str(root)), seconds, hop)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/bad.wav").write_text("no sound")
    source = Patches(Folder(str(tmp_path)))
    assert len(source) == 1
    with pytest.raises(ValueError, match=r"bad\.wav"):
        source[0]
