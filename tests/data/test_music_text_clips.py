"""YouTube8M-MusicTextClips in its published layout: texts, times and files, and what is missing."""

import logging

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data.sets.music_text_clips import MusicTextClips

TEXT = 'A slow song, "sad", with piano.'
LINES = [
    "video_id,start,end,text",
    '-abc_DEF123,1,3,"A slow song, ""sad"", with piano."',
    "gone0000000,60,70,Nobody has it.",
    "xyz,0.5,2.5,Drums.",
]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "test.csv").write_text("\n".join(LINES) + "\n")
    (tmp_path / "videos").mkdir()
    seconds = np.repeat([0.1, 0.2, 0.3, 0.4], 1000)
    for name in ("-abc_DEF123", "xyz"):
        soundfile.write(tmp_path / "videos" / f"{name}.wav", seconds, 1000)
    (tmp_path / "videos" / "-abc_DEF123.mp4").write_bytes(b"pictures")
    np.save(tmp_path / "videos" / "xyz.npy", np.ones((5, 3), np.float32))
    return tmp_path


def test_texts_times_and_files(root, caplog):
    caplog.set_level(logging.INFO)
    source = config.build(
        dict(kind="sets.music_text_clips", root=str(root), split="test", rate=1000), "data"
    )
    assert len(source) == 2 and "2 of 3 clips have a file" in caplog.text
    first, second = source[0], source[1]
    assert first["text"] == TEXT and first["id"] == "-abc_DEF123_1"
    np.testing.assert_allclose(first["audio"], np.repeat([0.2, 0.3], 1000), atol=1e-4)
    assert first["columns"] == {"video": str(root / "videos" / "-abc_DEF123.mp4")}
    np.testing.assert_allclose(second["audio"][:500], 0.1, atol=1e-4)
    assert second["columns"]["video"].endswith("xyz.npy")
    whole = MusicTextClips(str(root), "test", whole=False, rate=1000)
    assert len(whole[0]["audio"]) == 4000


def test_features_of_the_pictures_come_into_the_batch(root):
    source = dict(kind="sets.music_text_clips", root=str(root), split="test", rate=1000)
    entries = dict(
        audio=dict(kind="entries:Audio", samples=100),
        video=dict(kind="features", width=3, frames=4, array="video"),
    )
    (root / "videos" / "-abc_DEF123.wav").unlink()
    (root / "videos" / "-abc_DEF123.mp4").unlink()
    options = dict(sources=dict(music=source), batch_size=1, entries=entries, rate=1000)
    batch = next(config.build(dict(kind="pipeline", **options), "data").batches())
    assert batch["video"].shape == (1, 4, 3) and batch["video"].all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("xyz,70,60,Drums.", r"test\.csv, line 2: start, end: got 70\.0, 60\.0"),
        ("xyz,,10,Drums.", "start, end: got None"),
        ("xyz,0,10,", r"line 2: text: got nothing"),
        ("other,0,10,Drums.", "none of the 1 clips of .* as other.wav"),
    ],
)
def test_what_is_wrong_is_named(root, line, said):
    (root / "test.csv").write_text(f"{LINES[0]}\n{line}\n")
    with pytest.raises(ValueError, match=said):
        len(MusicTextClips(str(root), "test"))


def test_another_table_or_split_is_refused(root):
    (root / "test.csv").write_text("ytid,caption\na,b\n")
    with pytest.raises(ValueError, match="video_id"):
        len(MusicTextClips(str(root), "test"))
    with pytest.raises(ValueError, match=r"no train\.csv"):
        len(MusicTextClips(str(root)))
    with pytest.raises(ValueError, match="one of train, test"):
        MusicTextClips(str(root), "eval")
