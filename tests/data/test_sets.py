"""Each collection against a tiny tree of its real layout."""

import json

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data.sets.audioset import Audioset
from ssl_audio.data.sets.esc import Esc
from ssl_audio.data.sets.iemocap import Iemocap
from ssl_audio.data.sets.librispeech import Librispeech
from ssl_audio.data.sets.speech_commands import SpeechCommands
from ssl_audio.data.sets.spoken_digit import SpokenDigit
from ssl_audio.data.sets.urbansound8k import Urbansound8k
from ssl_audio.data.sets.voxceleb1 import Voxceleb1


def sound(path, seconds=0.1, rate=16_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), 0.5), rate)


def metas(source, *keys):
    return [tuple(source.meta(i).get(key) for key in keys) for i in range(len(source))]


def cited(source):
    info = source.info
    assert info.licence != "unknown" and "http" in info.url
    assert any(mark in info.citation for mark in ("doi:", "arXiv:"))
    assert source[0]["audio"].dtype == np.float32 and source[0]["rate"] == 16_000
    return True


def esc50(root):
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for target in range(50):
        name = f"{target % 5 + 1}-100{target}-A-{target}.wav"
        rows.append(f"{name},{target % 5 + 1},{target},c{target},{target % 5 == 1},100{target},A")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    sound(root / "audio" / "1-1000-A-0.wav", rate=44_100)
    sound(root / "audio" / "2-1001-A-1.wav", rate=44_100)
    return str(root)


def test_esc_50_and_its_subset(tmp_path):
    root = esc50(tmp_path)
    whole = Esc(root)
    assert len(whole) == 50 and cited(whole) and whole.info.licence == "CC BY-NC 3.0"
    assert metas(whole, "id", "label", "fold")[7] == ("3-1007-A-7", 7, 3)
    ten = Esc(root, subset="esc10")
    assert metas(ten, "label") == [(i,) for i in range(10)] and cited(ten)
    assert ten.info.labels == tuple(f"c{5 * i + 1}" for i in range(10))
    assert {fold for (fold,) in metas(Esc(root, folds=(2, 3)), "fold")} == {2, 3}
    with pytest.raises(ValueError, match="wanted esc50 or esc10"):
        Esc(root, subset="esc11")
    with pytest.raises(ValueError, match="no meta/esc50.csv or meta.csv"):
        len(Esc(str(tmp_path / "audio")))


def test_esc_10_alone(shared_data):
    source = Esc(str(shared_data / "esc10"), subset="esc10")
    assert len(source) == 400 and len(source.info.labels) == 10 and cited(source)
    labels = np.array(metas(source, "label", "fold"))
    np.testing.assert_array_equal(np.bincount(labels[:, 0] * 5 + labels[:, 1] - 1), [8] * 50)
    with pytest.raises(ValueError, match="10 classes, but subset is 'esc50'"):
        len(Esc(str(shared_data / "esc10")))


def test_spoken_digits(tmp_path):
    for name in ("3_theo_0", "3_theo_5", "7_george_4", "7_george_49"):
        sound(tmp_path / "recordings" / f"{name}.wav", rate=8000)
    source = SpokenDigit(str(tmp_path))
    assert metas(source, "id", "label", "fold", "split") == [
        ("3_theo_0", 3, 2, "test"),
        ("3_theo_5", 3, 2, "train"),
        ("7_george_4", 7, 1, "test"),
        ("7_george_49", 7, 1, "train"),
    ]
    assert cited(source) and source[0]["audio"].size == 1600
    speakers = SpokenDigit(str(tmp_path), target="speaker", split="test")
    assert metas(speakers, "label") == [(1,), (0,)]
    assert speakers.info.labels == ("george", "theo")
    assert len(SpokenDigit(str(tmp_path), folds=(1,))) == 2


def test_all_real_spoken_digits(shared_data):
    root = str(shared_data / "fsdd")
    assert len(SpokenDigit(root)) == 3000 and len(SpokenDigit(root, split="test")) == 300
    assert len(SpokenDigit(root, target="speaker").info.labels) == 6


def test_speech_commands(tmp_path, caplog):
    for word in ("yes", "no"):
        for n in range(3):
            sound(tmp_path / word / f"abc_nohash_{n}.wav")
    sound(tmp_path / "_background_noise_" / "hum.wav")
    (tmp_path / "validation_list.txt").write_text("yes/abc_nohash_1.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/abc_nohash_2.wav\nyes/abc_nohash_2.wav\n")
    source = SpeechCommands(str(tmp_path))
    assert len(source) == 6 and source.info.labels == ("no", "yes") and cited(source)
    test = SpeechCommands(str(tmp_path), split="test")
    wanted = [("no/abc_nohash_2.wav", 0), ("yes/abc_nohash_2.wav", 1)]
    assert metas(test, "id", "label") == wanted
    assert len(SpeechCommands(str(tmp_path), split="train")) == 3
    assert metas(SpeechCommands(str(tmp_path), split="validation"), "label") == [(1,)]
    assert not caplog.text
    (tmp_path / "no/abc_nohash_2.wav").unlink()
    assert len(SpeechCommands(str(tmp_path), split="test")) == 1
    assert "1 of 3 files that its lists name are not there, as no/abc_nohash_2.wav" in caplog.text
    with pytest.raises(
        ValueError, match=rf"no validation_list.txt in .*; .*{tmp_path.name} has it"
    ):
        len(SpeechCommands(str(tmp_path.parent)))


def test_audioset(tmp_path, caplog):
    (tmp_path / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
    )
    (tmp_path / "eval_segments.csv").write_text(
        "# Segments csv created Sun Mar  5 10:54:25 2017\n"
        "# num_ytids=4, num_segs=4, num_unique_labels=2, num_positive_labels=5\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        '--4gqARaEJE, 0.000, 10.000, "/m/05zppz,/m/09x0r"\n'
        'YxlGt805lTA, 30.000, 40.000, "/m/09x0r"\n'
        'abcdefghijk, 1.000, 11.000, "/m/05zppz"\n'
        'gone_video1, 1.000, 11.000, "/m/05zppz"\n'
    )
    for name in ("Y--4gqARaEJE", "YxlGt805lTA_30.000", "abcdefghijk"):
        sound(tmp_path / "eval" / f"{name}.flac")
    source = Audioset(str(tmp_path), segments="eval")
    assert metas(source, "id", "label", "split") == [
        ("--4gqARaEJE", (0, 1), "eval"),
        ("YxlGt805lTA", (0,), "eval"),
        ("abcdefghijk", (1,), "eval"),
    ]
    assert source.missing == 1 and source.info.multilabel and cited(source)
    assert source.info.labels[1] == "Male speech, man speaking"
    rows = [("/m/09x0r", ["/m/05zppz"]), ("/m/05zppz", [])]
    found = [{"id": mid, "name": mid, "child_ids": below} for mid, below in rows]
    (tmp_path / "ontology.json").write_text(json.dumps(found))
    assert metas(Audioset(str(tmp_path), segments="eval"), "label")[2] == ((1,),)
    assert "1 clips have labels without those that they imply: Male speech, man" in caplog.text
    whole = Audioset(str(tmp_path), segments="eval", parents="add")
    assert metas(whole, "label") == [((0, 1),), ((0,),), ((0, 1),)]
    with pytest.raises(ValueError, match=r"Audioset\.parents: got 'yes', wanted one of check"):
        Audioset(str(tmp_path), parents="yes")
    with pytest.raises(ValueError, match=r"Audioset\.segments: got 'test'"):
        Audioset(str(tmp_path), segments="test")


def test_librispeech(tmp_path):
    for split, speaker, chapter, text in (
        ("dev-clean", "84", "121123", "GO DO YOU HEAR"),
        ("test-other", "1688", "142285", "MISTER THORNTON"),
    ):
        book = tmp_path / split / speaker / chapter
        sound(book / f"{speaker}-{chapter}-0000.flac")
        sound(book / f"{speaker}-{chapter}-0001.flac")
        lines = [f"{speaker}-{chapter}-{n:04d} {text} {n}" for n in (0, 1)]
        (book / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
    source = Librispeech(str(tmp_path))
    assert len(source) == 4 and source.info.labels == ("84", "1688") and cited(source)
    only = Librispeech(str(tmp_path), split="test-other")
    assert metas(only, "id", "text", "label", "split")[1] == (
        "1688-142285-0001",
        "MISTER THORNTON 1",
        1,
        "test-other",
    )
    assert only[1]["audio"].size == 1600
    with pytest.raises(ValueError, match="split 'train-clean-100'"):
        len(Librispeech(str(tmp_path), split="train-clean-100"))


def test_every_set_is_built_from_config(tmp_path):
    for kind in ("esc", "spoken_digit", "speech_commands", "audioset", "librispeech", "fsd50k"):
        source = config.build({"kind": f"sets.{kind}", "root": str(tmp_path / "no")}, "data")
        with pytest.raises(ValueError, match=r"root: no such folder: .*no"):
            len(source)


def test_urbansound8k(tmp_path):
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    rows = ["100032-3-0-0.wav,100032,0.0,0.3,1,5,3,dog_bark", "7-0-0-1.wav,7,1,5,2,10,0,siren"]
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/UrbanSound8K.csv").write_text("\n".join([header, *rows]) + "\n")
    sound(tmp_path / "audio/fold5/100032-3-0-0.wav", rate=44_100)
    whole = Urbansound8k(str(tmp_path))
    assert cited(whole) and whole.info.labels == ("siren", "dog_bark")
    assert metas(whole, "id", "label", "fold") == [("100032-3-0-0", 1, 5), ("7-0-0-1", 0, 10)]
    assert len(Urbansound8k(str(tmp_path), folds=(10,))) == 1
    with pytest.raises(ValueError, match="no metadata/UrbanSound8K.csv or UrbanSound8K.csv in"):
        len(Urbansound8k(str(tmp_path / "audio")))


def test_urbansound8k_without_its_two_folders(tmp_path):
    rows = "slice_file_name,fold,classID,class\n100032-3-0-0.wav,5,3,dog_bark\n"
    sound(tmp_path / "copy/fold5/100032-3-0-0.wav")
    (tmp_path / "copy/UrbanSound8K.csv").write_text(rows)
    assert len(Urbansound8k(str(tmp_path / "copy"))[0]["audio"]) == 1600
    with pytest.raises(ValueError, match=r"in .*; .*copy has it"):
        len(Urbansound8k(str(tmp_path)))


@pytest.mark.parametrize("places", [("wav", "wav"), ("dev/wav", "test/wav")])
def test_voxceleb1(tmp_path, places):
    lines = ["1 id10001/1zcIwhmdeo4/00001.wav", "3 id10001/7w0IBEWc9Qw/00002.wav",
             "2 id10270/5r0dWxy17C8/00003.wav"]  # fmt: skip
    (tmp_path / "iden_split.txt").write_text("\n".join(lines) + "\n")
    sound(tmp_path / places[0] / "id10001/1zcIwhmdeo4/00001.wav")
    sound(tmp_path / places[1] / "id10270/5r0dWxy17C8/00003.wav")
    whole = Voxceleb1(str(tmp_path))
    assert cited(whole) and whole.info.labels == ("id10001", "id10270")
    assert metas(whole, "label", "split") == [(0, "train"), (0, "test"), (1, "validation")]
    assert len(whole[2]["audio"]) == 1600 and len(Voxceleb1(str(tmp_path), split="test")) == 1
    (tmp_path / "iden_split.txt").write_text("4 id10001/x/1.wav\n")
    with pytest.raises(ValueError, match="line 1: wanted '1 speaker/video/n.wav'"):
        len(Voxceleb1(str(tmp_path)))


def test_iemocap(tmp_path):
    for session, emotions in ((1, ("neu", "exc", "xxx")), (2, ("sad", "ang", "hap"))):
        base, name = tmp_path / f"Session{session}", f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for n, emotion in enumerate(emotions):
            lines += [
                f"[6.29 - 8.23]\t{name}_F00{n}\t{emotion}\t[2.5, 2.5, 2.5]",
                "C-E2:\tNeutral;\t()",
            ]
        (base / "dialog/EmoEvaluation").mkdir(parents=True)
        (base / f"dialog/EmoEvaluation/{name}.txt").write_text("\n".join(lines) + "\n")
        sound(base / f"sentences/wav/{name}/{name}_F000.wav")
    whole = Iemocap(str(tmp_path))
    assert cited(whole) and whole.info.labels == ("neutral", "happy", "angry", "sad")
    assert metas(whole, "label", "fold") == [(0, 1), (1, 1), (3, 2), (2, 2), (1, 2)]
    assert metas(Iemocap(str(tmp_path), folds=(2,)), "id")[0] == ("Ses02F_impro01_F000",)
    with pytest.raises(ValueError, match="no Session"):
        len(Iemocap(str(tmp_path / "Session1")))
