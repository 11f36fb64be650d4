"""An index of an encoder of sound alone: asking, adding, removing, old formats, several processes."""

import json
import shutil
import threading

import encoders
import numpy as np
import pytest
import soundfile

from ssl_audio import load
from ssl_audio.inference import approximate, indexing, search
from ssl_audio.inference import index as indexes
from ssl_audio.inference.index import Index
from ssl_audio.storage import lock

faiss = pytest.importorskip("faiss", reason="pip install 'ssl_audio[search]'")
RATE = 16_000


def sound(seed, seconds):
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 200 * 1.7 ** (seed % 6) * t)
    return (tone + rng.normal(0, 0.01, len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    encoders.save(encoders.encoder(frames=24), workdir, 1)
    return workdir


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    for i in range(6):
        path = root / "ab"[i % 2] / f"{i}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sound(i, 0.2 + 0.3 * i), RATE, subtype="FLOAT")
    return root


def index(run, where, *more):
    return search.main(["index", f"--checkpoint={run}", f"--index={where}", *map(str, more)])


@pytest.fixture(scope="module")
def made(run, sounds, tmp_path_factory):
    where = tmp_path_factory.mktemp("index") / "i"
    index(run, where, sounds)
    return where


def test_an_encoder_of_sound_is_asked_by_sound(run, made, sounds, tmp_path, capsys):
    found = Index(made)
    assert not found.words and found.settings == {"pool": "mean", "layer": -1, "window": None}
    assert found.vectors.shape == (len(found), 32) and found.checkpoint == str(run)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    table = tmp_path / "hits.csv"
    asked = ["query", f"--index={made}", f"--audio={sounds / 'b' / '5.wav'}", "--top=3"]
    hits = search.main([*asked, f"--csv={table}"])
    assert len({hit.path for hit in hits}) == 3
    lines = table.read_text().splitlines()
    assert lines[0] == "rank,path,start,end,score" and len(lines) == 4
    assert lines[1].split(",")[1] == hits[0].path
    # Each row's vector is the one that the encoder gives of that segment, of a clip's own length.
    encoder = load(run)
    for row, vector in zip(found.rows, found.vectors, strict=True):
        audio, _ = soundfile.read(row.path, dtype="float32")
        assert row.end <= len(audio) / RATE + 1e-3
        wanted = encoder.embed(audio[round(row.start * RATE) : round(row.end * RATE)], RATE)
        np.testing.assert_allclose(vector, wanted / np.linalg.norm(wanted), atol=2e-5)
    # A segment that was found is asked with, and found first.
    row = found.rows[len(found) - 2]
    asked[2:] = [f"--audio={row.path}", f"--start={row.start}", f"--end={row.end}"]
    (best, *_) = search.main(asked)
    assert (best.path, best.start) == (row.path, row.start) and best.score > 0.9999
    assert found.rows[best.row] == row
    with pytest.raises(ValueError, match=r"got 9 to its end s, wanted a part of its 1\.70 s"):
        search.main([*asked[:3], "--start=9"])
    capsys.readouterr()


def test_words_are_refused_with_what_to_do(made):
    with pytest.raises(ValueError, match="encoder of sound.*--audio FILE.*audio and text"):
        search.main(["query", f"--index={made}", "rain"])
    with pytest.raises(ValueError, match="encoder of sound.*--audio FILE"):
        search.open_model(Index(made)).text("rain")


def test_pool_is_kept_and_another_is_refused(run, made, sounds, tmp_path):
    other = index(run, tmp_path, sounds / "a", "--pool=stats", "--layer=0", "--window=0.15")
    assert other.settings == {"pool": "stats", "layer": 0, "window": 0.15}
    assert other.vectors.shape[1] == 2 * 2 * 32
    assert max(row.end - row.start for row in other.rows) == pytest.approx(0.15)
    again = search.main(["index", f"--index={tmp_path}", str(sounds / "b")])
    assert again.settings == other.settings and len(again.rows.paths) == 6
    (hit, *_) = search.main(["query", f"--index={tmp_path}", f"--audio={sounds / 'a' / '0.wav'}"])
    assert hit.path.endswith("0.wav")
    with pytest.raises(ValueError, match="got pool rows, wanted stats, with which"):
        index(run, tmp_path, sounds, "--pool=rows")
    with pytest.raises(ValueError, match=r"window: got 0\.001 s, wanted at least 0\.1 s"):
        index(run, tmp_path / "new", sounds, "--window=0.001")


def test_adding_and_removing(run, sounds, tmp_path, monkeypatch):
    place, where = tmp_path / "more", tmp_path / "index"
    place.mkdir()
    for i in (7, 8, 9):
        soundfile.write(place / f"{i}.wav", sound(i, 0.3), RATE, subtype="FLOAT")
    index(run, where, sounds)
    read, decode = [], indexing.decode
    monkeypatch.setattr(indexing, "decode", lambda p, r: read.append(p.name) or decode(p, r))
    both = index(run, where, place)
    assert read == ["7.wav", "8.wav", "9.wav"] and len(both.rows.paths) == 9
    soundfile.write(place / "8.wav", sound(3, 0.4), RATE)
    (place / "7.wav").unlink()
    changed = index(run, where, place)
    assert read[3:] == ["8.wav"] and len(changed.rows.paths) == 8
    assert index(run, where, sounds, place).token == changed.token  # nothing is new
    assert len(read) == 4 and not (where / indexing.WAITING).exists()
    (place / "9.wav").unlink()
    less = search.main(["remove", f"--index={where}", "--gone"])
    assert len(less.rows.paths) == 7
    less = search.main(["remove", f"--index={where}", str(sounds / "a"), str(place / "8.wav")])
    assert [path[-8:] for path in less.rows.paths] == [f"/b/{i}.wav" for i in (1, 3, 5)]
    assert len(list(where.glob("*.npy"))) == 1
    for row, vector in zip(less.rows, less.vectors, strict=True):
        before = changed.rows[:].index(row)
        assert np.array_equal(vector, changed.vectors[before])
    with pytest.raises(ValueError, match="got /no/where, wanted a file or folder of the index"):
        search.main(["remove", f"--index={where}", "/no/where"])
    with pytest.raises(ValueError, match="nothing would be left"):
        search.main(["remove", f"--index={where}", str(sounds)])
    with pytest.raises(SystemExit):
        search.main(["remove", f"--index={where}"])


def test_another_model_is_refused(run, made, sounds, tmp_path):
    encoders.save(encoders.encoder(frames=24), tmp_path, 1, 2)  # trained on
    with pytest.raises(ValueError, match="got another model.*vectors of two models"):
        index(tmp_path, made, sounds)
    asked = ["query", f"--index={made}", f"--audio={sounds / 'a' / '0.wav'}"]
    with pytest.raises(ValueError, match="vectors are of another model than"):
        search.main([*asked, f"--checkpoint={tmp_path}"])


def test_an_index_of_an_earlier_version(run, made, sounds, tmp_path):
    """Rows in JSON, vectors in a file of Faiss."""
    new = Index(made)
    rows = [list(row) for row in new.rows]
    (tmp_path / "rows.json").write_text(json.dumps({"checkpoint": str(run), "rows": rows}))
    flat = faiss.IndexFlatIP(32)
    flat.add(np.array(new.vectors))
    faiss.write_index(flat, str(tmp_path / "vectors.faiss"))
    old = Index(tmp_path)
    assert old.rows[:] == new.rows[:] and np.array_equal(old.vectors, new.vectors)
    vector = np.array(new.vectors[4])
    assert old.query(vector, 3) == new.query(vector, 3)
    less = search.main(["remove", f"--index={tmp_path}", str(sounds / "b")])
    assert len(less.rows.paths) == 3 and not (tmp_path / "rows.json").exists()


def test_others_read_while_one_writes(made, sounds, tmp_path, monkeypatch):
    """A reader has the index of before or after; of two writers the second is refused."""
    with lock.on(made), pytest.raises(ValueError, match="another run is at work here"):
        search.main(["remove", f"--index={made}", str(sounds / "a")])
    before = Index(made)
    failures, over = [], threading.Event()

    def reader():
        vector = np.array(before.vectors[0])
        while not over.is_set():
            try:
                hits = Index(made).query(vector, 1)
                assert hits[0].score > 0.999
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    about = {"checkpoint": before.checkpoint, "digest": before.digest, "words": False}
    about["settings"] = before.settings
    for i in range(20):
        rows = before.rows
        indexes.write(made, {**about, "token": f"{i:016x}"}, rows, 32, [before.vectors])
    over.set()
    thread.join()
    assert not failures
    assert len(list(made.glob("*.npy"))) == 1


def test_an_approximate_index_of_many(tmp_path, monkeypatch, capsys):
    """Above a number of vectors: recall is measured and kept, scores are exact, all can be asked."""
    monkeypatch.setattr(approximate, "ABOVE", 2000)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 16))
    x = (centres[rng.integers(0, 40, 4000)] + 0.4 * rng.standard_normal((4000, 16))).astype("f4")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    versions = [f"/sounds/{i}.wav|1|1" for i in range(2000)]
    starts = np.tile([0.0, 1.0], 2000)
    rows = indexes.Rows(versions, np.repeat(np.arange(2000, dtype=np.int32), 2), starts, starts + 1)
    about = {"checkpoint": "c", "digest": "d", "words": True, "settings": {}, "token": "a"}
    made = indexes.write(tmp_path, about, rows, 16, [x])
    known = made.approximate
    assert known["recall@10"] >= 0.99 and known["probes"] < known["lists"] == 256
    assert "recall@10 0.99" in approximate.said(known) or "recall@10 1.0" in approximate.said(known)
    found = same = 0
    for vector in x[::100]:
        numbers, scores = made.nearest(vector, 10)
        exact, best = made.nearest(vector, 10, exact=True)
        np.testing.assert_allclose(scores, x[numbers] @ vector, atol=1e-6)
        found += len(set(numbers) & set(exact))
        same += abs(scores[0] - best[0]) < 1e-6
    assert found >= 0.97 * 400 and same == 40
    hits = made.query(x[7], 5)
    assert hits[0].path == "/sounds/3.wav" and hits[0].row == 7 and len(hits) == 5
    assert len(made.query(x[7], 1500)) == 1500  # more than the lists know: all are compared
    # Fewer vectors: the lists stay; far fewer: no approximate index.
    fewer = indexes.Rows(versions[:1900], rows.file[:3800], starts[:3800], starts[:3800] + 1)
    less = indexes.write(tmp_path, {**about, "token": "b"}, fewer, 16, [x[:3800]], made)
    assert less.approximate["recall@10"] >= 0.99 and len(list(tmp_path.glob("*.faiss"))) == 1
    tiny = indexes.Rows(versions[:9], rows.file[:18], starts[:18], starts[:18] + 1)
    none = indexes.write(tmp_path, {**about, "token": "c"}, tiny, 16, [x[:18]], less)
    assert none.approximate is None and not list(tmp_path.glob("*.faiss"))
    capsys.readouterr()


def test_hits_are_in_order_however_often_more_are_asked_for(made, monkeypatch):
    """A search that finds too few files, and their worse segments, is followed by one that finds more."""
    found = Index(made)
    vector = found.vectors[0]
    scores = found.vectors @ vector
    files = found.rows.file
    worst = [
        int(np.flatnonzero(files == f)[np.argmin(scores[files == f])]) for f in np.unique(files)
    ]
    few = sorted(worst, key=lambda row: scores[row])[:2]
    exact = found.query(vector, 3)
    assert len(exact) == 3 < 4 * 3 < len(found), "more can be asked for"
    nearest = found.nearest

    def poor(vector, count, *, exact=False):
        if count < len(found):
            return np.array(few), scores[few]
        return nearest(vector, count, exact=True)

    monkeypatch.setattr(found, "nearest", poor)
    hits = found.query(vector, 3)
    assert [(h.path, h.row) for h in hits] == [(h.path, h.row) for h in exact]
    assert hits[0].score == max(h.score for h in hits)


def test_what_is_damaged_or_gone_is_named(run, made, sounds, tmp_path):
    where = tmp_path / "i"
    shutil.copytree(made, where)
    about = json.loads((where / "index.json").read_text())
    ask = ["query", f"--index={where}", f"--audio={sounds / 'a/0.wav'}"]

    def fails(match, kind: type[Exception] = ValueError, more=(), **changed):
        (where / "index.json").write_text(json.dumps(about | changed))
        with pytest.raises(kind, match=match):
            search.main([*ask, *more])

    fails(r"index\.json: approximate: got 3, wanted an object", approximate=3)
    fails(r"i: settings: .*pool: got 'x'", settings={"pool": "x"})
    fails(r"i: settings: .*unexpected keyword", TypeError, settings={"pol": "mean"})
    gone = dict(checkpoint=str(tmp_path / "moved"))
    fails(r"moved.*if it lies elsewhere now: --checkpoint", FileNotFoundError, **gone)
    # A table is tried before the model is loaded; its folder is made.
    fails(r"a: cannot be written", more=[f"--csv={sounds / 'a'}"])
    (where / "index.json").write_text(json.dumps(about))
    search.main([*ask, f"--csv={tmp_path / 'new/hits.csv'}"])
    assert (tmp_path / "new/hits.csv").is_file()
    next(where.glob("vectors-*")).unlink()
    fails(r"vectors-\w+\.npy: no such file, which .*index\.json names: copy", FileNotFoundError)
