"""What predictors need beside parameters goes wherever the parameters go: every step, the best, exports."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_audio
from ssl_audio import config
from ssl_audio.convert import export
from ssl_audio.inference.program import program
from ssl_audio.storage import checkpoint, exported
from ssl_audio.structs import TrainState

SAMPLES = 2_800
OPTIONS = dict(
    objective=dict(
        kind="mean_teacher",
        frontend=dict(kind="fbank", bins=8, frames=16),
        tokenizer=dict(kind="bins"),
        encoder=dict(kind="cnn", channels=(4,), convolutions=1, norm=dict(kind="norms:BatchNorm")),
        head=dict(kind="classify:Classifier", classes=3),
    ),
    data=dict(
        kind="pipeline",
        batch_size=2,
        entries=dict(
            audio=dict(kind="entries:Audio", samples=SAMPLES),
            label=dict(kind="entries:Labels", classes=3, names=("a", "b", "c")),
        ),
        sources=dict(a=dict(kind="synthetic", size=4, seconds=0.1)),
    ),
    steps=2,
)
NOISE = np.random.default_rng(0).normal(0, 0.1, SAMPLES).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of two steps, the first the best; teachers are not what the model is."""
    workdir = tmp_path_factory.mktemp("teacher")
    (workdir / "config.json").write_text(json.dumps(OPTIONS))
    objective = config.build(OPTIONS["objective"], "objectives")
    batch = {"audio": jnp.asarray(NOISE[None]), "length": jnp.full(1, SAMPLES)}
    params, extra = objective.init(jax.random.key(0), batch)
    checkpoints = checkpoint.Checkpoints(workdir, best="test/accuracy", beside=objective.needs)
    for step in (1, 2):
        teacher = jax.tree.map(lambda p, s=step: p + 0.1 * s, extra["teacher"])
        state = TrainState(
            np.int32(step),
            params,
            {"main": {"n": np.ones(1)}},
            extra | {"teacher": teacher},
            jax.random.key(0),
        )
        checkpoints.save(state, {})
        checkpoints.save_best(state, {"test/accuracy": 1 - step / 10})
    checkpoints.close()
    return workdir


def taught(run, step):
    """Return the teacher's logits after a step."""
    objective = config.build(OPTIONS["objective"], "objectives")
    teacher = checkpoint.load_extra(run, ("teacher",), step)["teacher"]
    batch = {"audio": jnp.asarray(NOISE[None]), "length": jnp.full(1, SAMPLES)}
    return objective.logits({}, {"teacher": teacher}, batch)


def test_the_teacher_of_every_step_classifies(run, tmp_path):
    first, second = taught(run, 1), taught(run, 2)
    assert abs(first - second).max() > 0.01
    for step, wanted in ((None, second), (1, first), (2, second), ("best", first)):
        out = tmp_path / str(step)
        asked = [] if step is None else ["--step", str(step)]
        export.main(["--checkpoint", str(run), "--out", str(out), *asked])
        for model in (ssl_audio.load(run, step), ssl_audio.load(out)):
            found = model.predict("logits", NOISE, 16_000)
            np.testing.assert_allclose(found, wanted[0], atol=1e-5)
            assert model.scores(NOISE, 16_000).values.shape == (1, 3)
    assert not (tmp_path / "best/teacher").exists()


def test_those_who_ask_for_no_step_get_the_best_with_its_teacher(run, tmp_path):
    asked = OPTIONS | dict(checkpoint=dict(load_best=True, best="test/accuracy"))
    for name in ("checkpoints", "best"):
        (tmp_path / name).symlink_to(run / name)
    (tmp_path / "config.json").write_text(json.dumps(asked))
    found = ssl_audio.load(tmp_path).predict("logits", NOISE, 16_000)
    np.testing.assert_allclose(found, taught(run, 1)[0], atol=1e-5)


def test_a_shared_folder_and_a_program_have_the_teacher(run, tmp_path):
    export.main(["--checkpoint", str(run), "--out", str(tmp_path), "--to", "hub"])
    model = ssl_audio.load(tmp_path)
    np.testing.assert_allclose(model.predict("logits", NOISE, 16_000), taught(run, 2)[0], atol=1e-5)
    made = program(model)
    files = set(exported.read_arrays(tmp_path / exported.PARAMS)[0])
    files |= {f"extra/{name}" for name in exported.read_arrays(tmp_path / exported.EXTRA)[0]}
    assert set(made.params) == files
    got = jax.jit(made.run)(made.params, NOISE[None])["logits"]
    np.testing.assert_allclose(got, taught(run, 2), atol=1e-5)


def test_what_earlier_versions_wrote_without_a_teacher_says_what_it_lacks(run, tmp_path, caplog):
    export.main(["--checkpoint", str(run), "--out", str(tmp_path)])
    whole = exported.read_arrays(tmp_path / exported.EXTRA)[0]
    (tmp_path / exported.EXTRA).unlink()
    model = ssl_audio.load(tmp_path)
    assert "no teacher beside the parameters" in caplog.text
    assert model.embed(NOISE, 16_000).shape == (model.width,)
    with pytest.raises(ValueError, match="as earlier versions exported them"):
        model.predict("logits", NOISE, 16_000)
    other = {"teacher/head/linear/dense/kernel": np.zeros((4, 5), np.float32)}
    for wrong in (other, {name: value * np.nan for name, value in whole.items()}):
        exported.write_arrays(tmp_path / exported.EXTRA, wrong, {"format": exported.FORMAT})
        with pytest.raises(ValueError, match="of another model|NaN or infinite"):
            ssl_audio.load(tmp_path)
    (tmp_path / exported.EXTRA).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"extra\.safetensors"):
        ssl_audio.load(tmp_path)
