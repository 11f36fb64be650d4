"""Which parts `ssl-audio separate` writes: none twice, and all that were asked for by name."""

import json
import types

import numpy as np
import pytest
import soundfile

from ssl_audio.inference import separate
from ssl_audio.inference.separator import Separated, Separator, Wanted

RATE = 1000
LABELS = ("dog", "rain", "siren")
TREE = {
    "a": ("Animal", ["d"]),
    "b": ("Pet", ["d"]),
    "c": ("Alarm", ["s"]),
    "d": ("dog", []),
    "s": ("siren", []),
    "r": ("rain", []),
}


class OnlyDogs(Separator):
    """Gives the whole recording where dogs are asked for, and else nothing."""

    def __init__(self):
        """Need no network."""

    rate, labels, origin = RATE, LABELS, "here"  # type: ignore[assignment]

    def of_classes(self, name, classes):  # noqa: D102
        return Wanted(name, np.array([label in classes for label in LABELS], np.float32))

    def stream(self, pieces, wanted, *, overlap=0.0):  # noqa: D102
        for piece in pieces:
            yield Separated(piece, np.stack([one.condition[0] * piece for one in wanted]))


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_audio.inference.load.load", lambda *_, **__: OnlyDogs())
    sound = 0.1 * np.random.default_rng(0).normal(size=900)
    soundfile.write(tmp_path / "x.wav", sound, RATE, "FLOAT")
    rows = [dict(id=one, name=name, child_ids=below) for one, (name, below) in TREE.items()]
    (tmp_path / "ontology.json").write_text(json.dumps(rows))

    def called(*more):
        out = tmp_path / "out"
        given = [str(tmp_path / "x.wav"), "--checkpoint", "RUN", "--output", str(out), *more]
        given += ["--ontology", str(tmp_path / "ontology.json")]
        separate.main(given)
        return json.loads((out / separate.REPORT).read_text())["parts"], out

    return types.SimpleNamespace(run=called, out=tmp_path / "out")


def test_the_same_twice_is_refused(call):
    for names in (("siren", "siren"), ("dog", "rain", "Pet")):
        with pytest.raises(ValueError, match=f"'{names[-1]}' and '{names[0]}' ask for the same"):
            call.run("--classes", *names)
    assert not call.out.exists()


def test_a_part_that_was_asked_for_by_name_is_never_dropped(call, caplog):
    parts, out = call.run("--classes", "siren", "--level", "1")
    # Of the level: "Pet" is the same as "Animal", "Alarm" the same as siren, and "rain" is not heard.
    assert [part["name"] for part in parts] == ["siren", "Animal"]
    assert parts[0]["level_db"] is None and parts[1]["level_db"] == pytest.approx(0)
    assert {path.name for path in out.iterdir()} == {
        "siren.wav", "Animal.wav", "rest.wav", separate.REPORT,
    }  # fmt: skip
    assert not soundfile.read(out / "siren.wav")[0].any()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["siren.wav: silent: nothing of 'siren' was found in the recording"]
