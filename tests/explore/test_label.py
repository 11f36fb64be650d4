"""ssl-audio label on a terminal: what to label next, from a table of labels that may grow by other hands."""

import csv
import io

import encoders
import numpy as np
import pytest
import soundfile

import ssl_audio
from ssl_audio.explore import label

RATE = 16_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a run and a folder of short sounds, low and high."""
    made = tmp_path_factory.mktemp("label")
    encoders.save(encoders.encoder(frames=24), made / "run", 1)
    (made / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        tone = np.sin(2 * np.pi * (300 if i % 2 else 2500) * np.arange(3200) / RATE)
        noise = 0.01 * rng.standard_normal(3200)
        soundfile.write(made / f"sounds/{i:02}.wav", 0.3 * tone + noise, RATE)
    return made


def asked(capsys, *arguments):
    """Run the command; return the rows that it prints."""
    capsys.readouterr()
    label.main([str(a) for a in arguments])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_the_loop_on_a_terminal(place, capsys, caplog):
    table, probe = place / "labels.csv", place / "probe"
    folder = [place / "sounds", "--checkpoint", place / "run", "--labels", table, "--window", "0.2"]
    rows = asked(capsys, *folder, "--suggest", "4", "--save", probe)
    assert len(rows) == len({row["path"] for row in rows}) == 4
    assert all(row["guess"] == "" and float(row["end"]) == 0.2 for row in rows)
    assert "two classes" in caplog.text and not probe.exists()

    # Somebody labels them, and goes on another day.
    with open(table, "w", newline="") as file:
        file.write("path,start,end,label\n")
        for row in rows[:3]:
            name = "low" if int(row["path"][-6:-4]) % 2 else "high"
            file.write(f"{row['path']},{row['start']},{row['end']},{name}\n")
    known = {row["path"] for row in rows[:3]}
    if len({int(path[-6:-4]) % 2 for path in known}) < 2:
        with open(table, "a") as file:
            file.write(
                f"{place / 'sounds/00.wav'},0,0.2,high\n{place / 'sounds/01.wav'},0,0.2,low\n"
            )
        known |= {str(place / "sounds/00.wav"), str(place / "sounds/01.wav")}
    again = [place / "labels.index", "--labels", table, "--suggest", "20", "--save", probe]
    rows = asked(capsys, *again)
    assert {row["path"] for row in rows} == {str(p) for p in (place / "sounds").iterdir()} - known
    for row in rows:
        assert row["guess"] == ("low" if int(row["path"][-6:-4]) % 2 else "high")
        assert 0.5 < float(row["probability"]) <= 1

    best = asked(capsys, *again[:-4], "--suggest", "2", "--how", "highest", "--class", "low")
    assert [int(row["path"][-6:-4]) % 2 for row in best] == [1, 1]
    model = ssl_audio.load(probe)
    assert model.labels == ("high", "low")
    audio, rate = soundfile.read(place / "sounds/03.wav")
    assert model.scores(audio, rate).values[0].argmax() == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--suggest", "0"], "wanted at least 1"),
        (["x", "--suggest", "1", "--how", "highest"], "go together"),
        (["x", "--how", "random"], "is of --suggest"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, said, capsys):
    with pytest.raises(SystemExit):
        label.main(arguments)
    assert said in capsys.readouterr().err


def test_a_folder_of_sound_takes_a_model_and_a_table(place, capsys):
    with pytest.raises(SystemExit):
        label.main([str(place / "sounds"), "--suggest", "1"])
    assert "takes --checkpoint RUN and --labels FILE.csv" in capsys.readouterr().err


def test_where_a_probe_cannot_be_kept_is_said_before_anybody_labels(place, tmp_path):
    table, at = tmp_path / "t.npz", ["--suggest", "1"]
    np.savez(table, id=np.array(["a", "b"]), embedding=np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match="a table does not say how its vectors were made"):
        label.main([str(table), "--save", str(tmp_path / "probe"), *at])
    from pages import write_index

    write_index(
        tmp_path / "index", [(tmp_path / "a.wav", 0.0, 1.0)], np.eye(1, 4, dtype=np.float32)
    )
    with pytest.raises(ValueError, match="workdir of a training run"):
        label.main([str(tmp_path / "index"), "--save", str(place / "run"), *at])


def test_a_page_that_cannot_be_served_saves_nothing(place, tmp_path, monkeypatch):
    from pages import write_index

    write_index(
        tmp_path / "index", [(tmp_path / "a.wav", 0.0, 1.0)], np.eye(1, 4, dtype=np.float32)
    )
    saved, ends = [], [ValueError("the port is taken"), KeyboardInterrupt()]

    def serve(args, learner):
        raise ends.pop(0)

    monkeypatch.setattr(label.command, "serve", serve)
    monkeypatch.setattr(label, "_save", lambda args, learner: saved.append(args.save))
    how = [str(tmp_path / "index"), "--save", str(tmp_path / "probe")]
    with pytest.raises(ValueError, match="port"):
        label.main(how)
    assert not saved
    label.main(how)
    assert saved == [str(tmp_path / "probe")]
