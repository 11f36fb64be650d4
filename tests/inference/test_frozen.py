"""What another run has learned, as targets and teachers: loading it, clustering for it, taking turns."""

import json
import shutil

import jax
import numpy as np
import pytest
from encoders import options
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.convert import export
from ssl_audio.data import places
from ssl_audio.data.entries import clips
from ssl_audio.data.prepare import prepare
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.distributed import processes
from ssl_audio.inference import frozen, kmeans
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.frozen import Frozen
from ssl_audio.storage import checkpoint, exported, written
from ssl_audio.structs import TrainState
from ssl_audio.train import loop, stages

BATCH = {"audio": np.zeros((2, 8000), np.float32), "length": np.full(2, 8000, np.int32)}


def test_clusters_of_mfcc_become_targets(tmp_path, monkeypatch, capsys):
    tiny = dict(kind="synthetic", size=6, seconds=0.5)
    monkeypatch.setattr(places, "source", lambda _: tiny)
    out = str(tmp_path / "clusters")
    kmeans.main(["--data", "synthetic", "--codes", "5", "--out", out])
    assert "5 codes of 78 values" in capsys.readouterr().out
    frozen = Frozen(out)
    params, extra = frozen.init(None, BATCH)
    assert extra == {} and params["quantizer"]["book"].shape == (5, 78)
    noise = BATCH | {"audio": np.random.default_rng(0).normal(0, 0.1, (2, 8000))}
    codes = jax.jit(frozen.predictors()["codes"])(params, extra, noise)
    assert codes.shape == (2, 24, 1) and 0 <= codes.min() <= codes.max() < 5
    targets = written.trained(out, "quantizer", "codes")
    assert targets == 5
    with pytest.raises(ValueError, match="no quantizer.books"):
        written.trained(out, "quantizer", "books")
    with pytest.raises(ValueError, match="6 vectors for 9 codes|6 vectors for 7 codes"):
        source = config.build(tiny | dict(rate=16_000), "data")
        model = Encoder(
            config.build(kmeans.MFCC, "objectives"),
            {"tokenizer": {}, "encoder": {}},
            dict(data=clips(8000)),
        )
        kmeans.fit(model, source, 7, vectors=6)


def test_clusters_of_prepared_clips(tmp_path, capsys):
    """They have a rate of their own, which must be that of the features."""
    for rate in (16_000, 8_000):
        prepare(Synthetic(6, seconds=0.5, rate=rate), tmp_path / str(rate))
    more = ["--codes", "5", "--out", str(tmp_path / "clusters")]
    kmeans.main(["--data", str(tmp_path / "16000"), *more])
    assert "5 codes of 78 values" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--data: its clips are at 8000 Hz, .* of 16000 Hz"):
        kmeans.main(["--data", str(tmp_path / "8000"), *more])


def test_what_predictors_need_beside_parameters_is_loaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(options()))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    extra = {"book": np.ones((2, 3), np.float32), "teacher": np.zeros(4, np.float32)}
    state = TrainState(
        np.int32(3), {"w": np.ones(2)}, {"main": {"n": np.ones(1)}}, extra, jax.random.key(0)
    )
    checkpoints.save(state, {})
    checkpoints.close()
    found = checkpoint.load_extra(tmp_path, ("book",))
    assert found.keys() == {"book"} and found["book"].shape == (2, 3)
    assert checkpoint.load_extra(tmp_path, ()) == {}
    with pytest.raises(FileNotFoundError, match="no codes beside the parameters"):
        checkpoint.load_extra(tmp_path, ("book", "codes"))
    with pytest.raises(FileNotFoundError, match="no config.json"):
        Frozen(str(tmp_path / "nowhere")).predictors()


def test_an_exported_model_knows_what_is_frozen_in_it(tmp_path):
    """Its arrays travel with the model, in `extra`; its folder, which says how to use them, stays behind."""
    parts = [
        config.plain(load(ROOT / "configs/diffusion.py", arg))
        for arg in ("stage=autoencoder,runlocal", "runlocal")
    ]
    batch = jax.tree.map(jax.numpy.asarray, BATCH)
    folders = [str(tmp_path / name) for name in ("coder", "model")]
    made = None
    for folder, found in zip(folders, parts, strict=True):
        if made:
            found["objective"]["autoencoder"] = dict(kind=frozen.KIND, path=folders[0])
            words = jax.numpy.ones((2, 16), jax.numpy.int32)
            batch |= {"text": words, "text_length": words[:, 0]}
        made = config.build(found["objective"], "objectives")
        params, extra = made.init(jax.random.key(0), batch)
        exported.write(folder, params, found, extra={name: extra[name] for name in made.needs})
    for place, out in ((folders[1], "once"), (tmp_path / "once", "again")):
        export.main(["--checkpoint", str(place), "--out", str(tmp_path / out)])
        shutil.rmtree(folders[0], ignore_errors=True)
    options = written.read(tmp_path / "again")
    assert options["objective"]["autoencoder"]["model"]["kind"] == "autoencoder"
    again = config.build(options["objective"], "objectives")
    assert again.autoencoder.predictors().keys() == {"latents", "sound", "encode"}
    with pytest.raises(FileNotFoundError):  # what has no arrays to begin from says so
        again.init(jax.random.key(0), batch)


def test_stages_take_turns_and_learn_from_the_one_before(tmp_path, monkeypatch):
    seen = []

    def train(options, workdir):
        (workdir / "checkpoints/4").mkdir(parents=True)
        seen.append(config.plain(options)["objective"])

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(processes, "start", lambda *_: None)
    given = ["--config", f"{ROOT}/configs/openbeats.py:runlocal", "--workdir", str(tmp_path)]
    done = stages.main([*given, "--config.seed=7"])
    assert [path.name for path in done] == ["0_encoder", "0_tokenizer", "1_encoder"]
    first, tokenizer, second = seen
    assert first["targets"]["codes"]["kind"] == "features"
    assert tokenizer["teacher"]["path"] == str(tmp_path / "0_encoder")
    assert second["targets"]["codes"]["path"] == str(tmp_path / "0_tokenizer")
    (tmp_path / "other.py").write_text("STAGES = ()\n")
    with pytest.raises(ValueError, match="names no STAGES"):
        stages.plan(tmp_path / "other.py", "", None)


def test_a_run_that_was_stopped_stops_the_turns(tmp_path, monkeypatch):
    def train(options, workdir):
        del options
        (workdir / "checkpoints/2").mkdir(parents=True)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(processes, "start", lambda *_: None)
    given = ["--config", f"{ROOT}/configs/openbeats.py:runlocal", "--workdir", str(tmp_path)]
    assert len(stages.main(given)) == 1
