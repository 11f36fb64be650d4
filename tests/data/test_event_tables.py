"""Layouts of DESED and AudioSet-Strong: what is read, what is only counted, what is refused."""

import numpy as np
import pytest
import soundfile

from ssl_audio.config import build
from ssl_audio.data import event_tables
from ssl_audio.data.annotations import Event
from ssl_audio.data.sets.desed import Desed

RATE = 8000


@pytest.fixture
def desed(tmp_path):
    """Write the three parts of DESED's training data, a clip of each missing."""
    for place, names in (
        ("train/weak_16k", ["a.wav", "b.wav"]),
        ("train/unlabel_in_domain", ["c.wav"]),
        ("train/synthetic21_train/soundscapes", ["1.wav", "2.wav"]),
        ("validation", ["v.wav"]),
        ("train/strong_label_real", ["s.wav"]),
    ):
        folder = tmp_path / "audio" / place
        folder.mkdir(parents=True)
        for name in names:
            soundfile.write(folder / name, np.full(RATE, 0.1, np.float32), RATE)
    strong = "filename\tonset\toffset\tevent_label\n"
    for place, text in (
        (
            "train/weak.tsv",
            "filename\tevent_labels\na.wav\tSpeech,Dog\nb.wav\tCat\ngone.wav\tDog\n",
        ),
        ("train/unlabel_in_domain.tsv", "filename\nc.wav\n"),
        (
            "train/synthetic21_train/soundscapes.tsv",
            f"{strong}1.wav\t0.25\t0.5\tDog\n1.wav\t0\t1\tCat\n2.wav\t\t\t\ngone.wav\t0\t1\tCat\n",
        ),
        ("train/audioset_strong.tsv", f"{strong}s.wav\t0\t0.5\tSpeech\n"),
        ("validation/validation.tsv", f"{strong}v.wav\t0.5\t0.75\tSpeech\n"),
    ):
        file = tmp_path / "metadata" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_desed_strong_tables_lead_to_their_sound(desed, caplog):
    folder = desed / "audio/train/synthetic21_train/soundscapes"
    table = desed / "metadata/train/synthetic21_train/soundscapes.tsv"
    assert event_tables.read(table) == {
        str(folder / "1.wav"): [Event(0, 1, "Cat"), Event(0.25, 0.5, "Dog")],
        str(folder / "2.wav"): [],
    }
    assert "2 of 3 clips have a file" in caplog.text
    real = event_tables.read(desed / "metadata/train/audioset_strong.tsv")
    assert list(real) == [str(desed / "audio/train/strong_label_real/s.wav")]
    # Where the folder has no folder of the table's name.
    found = event_tables.read(desed / "metadata/validation/validation.tsv")
    assert found == {str(desed / "audio/validation/v.wav"): [Event(0.5, 0.75, "Speech")]}
    recordings = build(dict(kind="annotated:Recordings", path=str(table), rate=RATE), "data")
    assert recordings[0]["events"] == ((0, 1, 0), (0.25, 0.5, 1)) and recordings.info.labels == (
        "Cat",
        "Dog",
    )


def test_desed_weak_and_unlabelled_clips(desed):
    weak = Desed(str(desed / "metadata/train/weak.tsv"), RATE)
    assert weak.info.labels == ("Cat", "Dog", "Speech")
    assert [weak.meta(i)["label"] for i in range(2)] == [(1, 2), (0,)] and len(weak) == 2
    assert weak[0]["audio"].shape == (RATE,)
    unlabelled = Desed(str(desed / "metadata/train/unlabel_in_domain.tsv"), RATE)
    assert len(unlabelled) == 1 and "label" not in unlabelled.meta(0)
    named = event_tables.weak(str(desed / "metadata/train/weak.tsv"), RATE)
    assert len(build(named, "data")) == 2
    with pytest.raises(ValueError, match="label 'Cat' is not one of Dog, Speech"):
        Desed(str(desed / "metadata/train/weak.tsv"), RATE, ("Dog", "Speech")).info  # noqa: B018


def test_desed_says_what_is_wrong(desed):
    with pytest.raises(ValueError, match="got the columns filename, event_labels.*weak=TABLE"):
        event_tables.read(desed / "metadata/train/weak.tsv")
    for file in (desed / "audio/train/weak_16k").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="none of its 3 clips is there; looked in .*weak_16k"):
        Desed(str(desed / "metadata/train/weak.tsv")).info  # noqa: B018


@pytest.fixture
def strong(tmp_path):
    head = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    rows = (
        "0bRUkLsttto_30000\t1.5\t2.25\t/m/1",
        "0bRUkLsttto_30000\t0\t10\t/m/2",
        "Y2345678901_5000\t3\t3\t/m/1",
        "Y2345678901_5000\t3\t4\t/m/3",
        "-onlylisted_0\t1\t2\t/m/1",
    )
    (tmp_path / "t.tsv").write_text(head + "\n".join(rows) + "\n")
    (tmp_path / "mid_to_display_name.tsv").write_text("/m/1\tBark\n/m/2\tMusic\n/m/3\tBark\n")
    (tmp_path / "sound").mkdir()
    for name in ("Y0bRUkLsttto.wav", "Y2345678901_5000.wav"):
        soundfile.write(tmp_path / "sound" / name, np.zeros(RATE), RATE)
    return tmp_path / "t.tsv"


def test_audioset_strong_times_are_those_of_the_excerpt(strong, caplog):
    sound = strong.parent / "sound"
    assert event_tables.read(strong) == {
        str(sound / "Y0bRUkLsttto.wav"): [
            Event(0, 10, "Music"),
            Event(1.5, 2.25, "Bark (/m/1)"),
        ],
        str(sound / "Y2345678901_5000.wav"): [Event(3, 4, "Bark (/m/3)")],
    }
    assert "1 of 4 events have no length and are left out" in caplog.text
    (strong.parent / "mid_to_display_name.tsv").unlink()
    assert {e.label for some in event_tables.read(strong).values() for e in some} == {
        "/m/1",
        "/m/2",
        "/m/3",
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("label\n", "label\tpresent\n", "a column 'present'.*audioset_eval_strong.tsv"),
        ("_30000\t1.5", "\t1.5", "line 2: segment_id: got '0bRUkLsttto'"),
        ("1.5\t2.25", "2.5\t2.25", "line 2: got 2.5 to 2.25 s"),
        ("\t/m/2", "\t/m/9", "line 3: label: got '/m/9', wanted a MID"),
        ("Y2345678901_5000\t3\t4", "0bRUkLsttto_9\t3\t4", "0bRUkLsttto_9, and 0bRUkLsttto_30000"),
    ],
)
def test_audioset_strong_says_what_is_wrong(strong, old, new, said):
    text = strong.read_text()
    if "present" in new:
        text = text.replace("/m/1\n", "/m/1\tPRESENT\n").replace("/m/2\n", "/m/2\tPRESENT\n")
        text = text.replace("/m/3\n", "/m/3\tPRESENT\n")
    strong.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=said):
        event_tables.read(strong)
