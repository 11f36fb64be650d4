"""Folders that earlier versions converted: a window of a tenth of a second is warned of."""

import json
import pathlib

import ssl_audio
from ssl_audio.convert import from_state_dict
from ssl_audio.convert.base import plain_names
from ssl_audio.convert.files import read
from ssl_audio.storage import exported

GOLDEN = pathlib.Path(__file__).parent / "golden"


def test_a_tiny_window_of_a_converted_folder_is_warned_of(tmp_path, caplog):
    state, options = read(GOLDEN / "wav2vec2_group.npz")
    model = from_state_dict("wav2vec2", plain_names(state), **options)
    exported.write(tmp_path, model.params, model.config)
    assert ssl_audio.load(tmp_path).window == 30.0
    assert "window" not in caplog.text
    config = json.loads((tmp_path / "config.json").read_text())
    config["data"]["entries"]["audio"]["samples"] = 1600
    (tmp_path / "config.json").write_text(json.dumps(config))
    ssl_audio.load(tmp_path)
    assert f"{tmp_path}: its window is 0.1 s" in caplog.text and "Convert it again" in caplog.text
    caplog.clear()
    (tmp_path / "config.json").write_text(json.dumps(config | {"steps": 4}))
    ssl_audio.load(tmp_path)
    assert "window" not in caplog.text, "a run has the window that it was trained with"
