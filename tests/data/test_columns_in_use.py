"""Columns that entries of a batch look up are in use: a table does not say otherwise."""

import logging

import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data import tables

AUDIO = dict(kind="entries:Audio", samples=100)
IMAGE = dict(kind="pictures:Image", size=4, column="photo")

VIDEO = dict(samples=100, frames=2, fps=1.0, picture=IMAGE, column="film")


@pytest.mark.parametrize(
    ("entry", "columns"),
    [
        (dict(kind="video:AudioVideo", **VIDEO), "film photo"),
        (dict(kind="rejected", audio=AUDIO), "rejected"),
        (dict(kind="pixels", image=IMAGE, classes=2), "pixels photo"),
        (dict(kind="features", width=3, array="mood"), "mood"),
        (dict(kind="cross_modal", audio=AUDIO), "cluster positive negative"),
        (dict(kind="triplet", audio=AUDIO, by="labels"), ""),
        (dict(kind="entries:Group", column="user"), "user"),
    ],
)  # fmt: skip
def test_columns_of_entries_are_not_called_unused(entry, columns, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tables, "_named", set())
    caplog.set_level(logging.INFO)
    soundfile.write(tmp_path / "a.wav", [0.1] * 200, 1000)
    used = columns.split()
    table = tmp_path / "clips.csv"
    names = ",".join(["path", "weather", *used])
    table.write_text(names + "\n" + ",".join(["a.wav"] * (len(used) + 2)) + "\n")
    source = dict(kind="source:Manifest", path=str(table), rate=1000)
    entries = dict(one=entry)
    options = dict(sources=dict(some=source), batch_size=1, entries=entries, rate=1000)
    built = config.build(dict(kind="pipeline", **options), "data")
    assert len(built.sources["some"]) == 1
    assert caplog.text.count("not used: weather") == 1
    assert caplog.text.rstrip().endswith("not used: weather")
