"""The model card and the config of a folder that is to be shared."""

import json
import math
from typing import Any

import encoders
import numpy as np
import pytest

import ssl_audio
from ssl_audio.convert import card, export, private


def test_yaml_of_every_version_reads_the_same():
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra `hub`")
    values = {
        "language": "no", "list": ["on", "1.0", "a: b", "#", "", "é\"\\", "-"], "small": 1e-05,
        "large": 1e22, "two": [2.0, 3, True, None], "nested": [{"a": [{"b": 0.1}]}],
    }  # fmt: skip
    assert yaml.safe_load(card.yaml(values)) == values
    for wrong in (np.float32(0.5), math.nan, {1, 2}):
        with pytest.raises(TypeError, match="wanted text or a number"):
            card.yaml({"value": wrong})


def exported(tmp_path, *more):
    """Export a classifier whose run wrote metrics and whose config names places."""
    encoder = encoders.encoder(frames=24)
    config = json.loads(json.dumps(encoder.config))
    config["data"]["entries"]["label"] = dict(
        kind="entries:Labels", classes=2, names=["no", "a|b [x](http://y)"]
    )
    config["data"]["sources"] = {
        "here": dict(kind="synthetic", size=16),
        "gone": dict(kind="source:Folder", root="/home/me/secret place/birds"),
    }
    rest = dict(kind="synthetic", size=24)
    config["data"] |= dict(kind="beside", beside=dict(more=dict(sources=dict(rest=rest))))
    config["optim"] = dict(lr=1e-3)
    config["warm_start"] = dict(
        a=dict(path="hf://them/base"), b=dict(path="/home/me/secret place/run")
    )
    run = tmp_path / "run"
    encoders.save(type(encoder)(encoder.objective, encoder.params, config), run, 5)
    lines = [{"step": 3, "loss": 2.0}, {"step": 5, "loss": 1.5, "clips_per_second": 9.0},
             {"step": 5, "test/accuracy": 0.75, "test/mAP": float("nan")}]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "evals").mkdir()
    rows = [{"fold": "1", "accuracy": 0.1}, {"fold": "mean", "features": "encoder",
            "classifier": "linear", "accuracy": 0.875}]  # fmt: skip
    (run / "evals/esc10_folds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    export.main(["--checkpoint", str(run), "--to", "hub", "--out", str(tmp_path / "out"), *more])
    return encoder, tmp_path / "out"


def test_the_card_says_what_is_known_and_names_no_place(tmp_path, capsys):
    encoder, out = exported(tmp_path)
    text = (out / "README.md").read_text()
    assert "| synthetic | 16 | CC0 1.0 |" in text
    assert "| gone | unknown | unknown |" in text
    assert "| synthetic | 24 | CC0 1.0 |" in text  # of the pipeline beside it
    assert "5 steps of 8 clips, 40 in all; learning rate 0.001 at most." in text
    assert "It began from them/base." in text and "Licence of the model: unknown." in text
    assert "| `loss` | 1.5 |" in text and "| `test/accuracy` | 0.75 |" in text
    assert "| esc10\\_folds: accuracy, encoder, linear | 0.875 |" in text
    assert "clips_per_second" not in text and "nan" not in text.lower()
    assert "0. no\n1. a\\|b \\[x\\](http://y)\n" in text
    said = capsys.readouterr().out
    assert "a place of this machine: data.sources.gone.root" in said
    config = json.loads((out / "config.json").read_text())
    assert "sources" not in config["data"] and "warm_start" not in config
    for path in out.iterdir():
        assert (
            b"secret" not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes()
        )
    sound = np.random.default_rng(0).normal(0, 0.1, 4_000).astype(np.float32)
    model = ssl_audio.load(out)
    np.testing.assert_array_equal(model.embed(sound, 16_000), encoder.embed(sound, 16_000))


def test_the_hub_reads_the_metadata(tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    _, out = exported(tmp_path, "--licence", "cc-by-4.0", "--step", "5")
    data = hub.ModelCard.load(out / "README.md").data
    assert data.license == "cc-by-4.0" and data.library_name == "ssl_audio"
    assert data.base_model == ["them/base"] and data.pipeline_tag == "audio-classification"
    (result,) = data.eval_results
    assert result.metric_type == "accuracy" and result.metric_value == 0.75
    assert type(result.metric_value) is float


@pytest.mark.parametrize(
    "place",
    ["/data/x", "~/x", "../x", "C:\\x\\y", "s3://bucket/x", "az://mine/x", "file:x", "runs/mine"],
)
def test_places_are_cut_to_their_last_name(place):
    last = "file:x" if place == "file:x" else "mine" if place == "runs/mine" else place[-1]
    sources = dict(a=dict(root=place))
    config: dict[str, Any] = dict(
        objective=dict(kind="mae", teacher=dict(path=place), frontend=dict(scale="a/b")),
        data=dict(rate=1, sources=sources, beside=dict(more=dict(sources=sources))),
        evals=dict(b=[dict(source=dict(root=place))]),
    )
    found, out = private.public(config)
    assert found["objective"]["teacher"]["path"] == last
    assert found["objective"]["frontend"] == dict(scale="a/b")
    assert found["data"] == dict(rate=1, beside=dict(more={}))
    assert set(out) == {
        "objective.teacher.path",
        "data.sources.a.root",
        "data.beside.more.sources.a.root",
        "evals.b.0.source.root",
    }
    assert config["objective"]["teacher"]["path"] == place  # not changed


def test_what_is_no_place_stays():
    config = dict(objective=dict(kind="a:B", path="hf://a/b", file="package:c/d", text="1/2"))
    assert private.public(config) == (config, {})
