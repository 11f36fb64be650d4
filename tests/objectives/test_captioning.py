"""Captions are learned word by word from what an encoder hears, and said by the model that `load` returns."""

import json

import encoders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import ssl_audio
from ssl_audio import config, config_files
from ssl_audio.inference.captioner import Captioner
from ssl_audio.storage import exported

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture(scope="module")
def options():
    return config.plain(config_files.load("caption:runlocal"))


@pytest.fixture(scope="module")
def made(options):
    objective = config.build(options["objective"], "objectives")
    batch = batch_of(options)
    return objective, encoders.drawn(objective, batch), batch


def batch_of(options, clips=3):
    """Return noise and captions of 5, 4 and 3 words, the begin counted; the last clip is short."""
    samples = options["data"]["entries"]["audio"]["samples"]
    rng = np.random.default_rng(0)
    text = rng.integers(2, 9, (clips, 8))
    text[:, 0] = 1
    lengths = np.array([5, 4, 3][:clips], np.int32)
    text = np.where(np.arange(8) < lengths[:, None], text, 0).astype(np.int32)
    batch = dict(
        audio=rng.normal(0, 0.1, (clips, samples)).astype(np.float32),
        length=np.array([samples, samples, samples // 3][:clips], np.int32),
        text=text, text_length=lengths,
    )  # fmt: skip
    return jax.tree.map(jnp.asarray, batch)


def test_the_loss_is_the_mean_over_all_words_and_the_ends(made):
    objective, params, batch = made
    found = objective.loss(params, {}, batch, jax.random.key(0), train=False)
    entropy, count = found.metrics["entropy"]
    assert count == 5 + 4 + 3 + 3  # an end of each
    told = objective.predictors()["prefix"](params, {}, batch)
    model, total, right = objective.words.model, 0.0, 0
    for row, clip, length in zip(told, batch["text"], batch["text_length"], strict=True):
        said = [*clip[:length].tolist(), 0]
        # Each from those before: begin of all is the number after the last.
        columns = jnp.array([[model.codes, *said[:-1]]])[..., None]
        logits = model.apply({"params": params["words"]["model"]}, columns, row[None])[0, :, 0]
        chances = jax.nn.log_softmax(logits)
        total -= sum(float(chances[i, word]) for i, word in enumerate(said))
        right += int(np.sum(np.argmax(logits, -1) == np.array(said)))
    assert float(entropy) == pytest.approx(total, rel=1e-4)
    assert float(found.total) == pytest.approx(total / 15, rel=1e-4)
    assert float(found.metrics["accuracy"][0]) == right


def test_a_caption_without_room_for_its_end_has_none(made):
    objective, params, batch = made
    full = batch | dict(text=jnp.tile(batch["text"][:1, 1:2], (3, 8)), text_length=jnp.full(3, 8))
    _, count = objective.loss(params, {}, full, jax.random.key(0), train=False).metrics["entropy"]
    assert count == 3 * 8


def test_a_frozen_encoder_gets_no_gradient_and_its_parameters_are_not_trained(options):
    frozen = dict(options["objective"], frozen=True)
    objective = config.build(frozen, "objectives")
    batch = batch_of(options)
    params = encoders.drawn(objective, batch)

    def loss(params):
        return objective.loss(params, {}, batch, jax.random.key(0), train=True).total

    slopes = jax.jit(jax.grad(loss))(params)
    sizes = {k: max(float(abs(x).max()) for x in jax.tree.leaves(v)) for k, v in slopes.items()}
    assert sizes["encoder"] == sizes["tokenizer"] == 0 and min(sizes["prefix"], sizes["words"]) > 0
    assert [phase.trains for phase in objective.phases] == ["^(prefix|words)/"]
    learns = config.build(options["objective"], "objectives")
    assert [phase.trains for phase in learns.phases] == [".*"]


def test_padding_is_not_heard(made):
    objective, params, batch = made
    prefix = jax.jit(objective.predictors()["prefix"])
    told = prefix(params, {}, batch)
    # Columns behind the clip's end are hidden from the queries; the encoder itself has heard zeros there.
    seen = objective._heard(params, batch, None).tokens
    rows = np.asarray(seen.valid).reshape(3, *seen.grid)
    assert rows[0].all() and not rows[2, :, -1].any() and rows[2, :, 0].all()
    changed = objective.prefix.apply(
        {"params": params["prefix"]},
        encoders_of(seen, lambda x: jnp.where(seen.valid[..., None], x, x[..., ::-1])),
    )
    np.testing.assert_allclose(changed[2], told[2], rtol=1e-4, atol=1e-4)


def encoders_of(tokens, change):
    from ssl_audio.structs import Encoded

    return Encoded(tokens=tokens.replace(x=change(tokens.x)))


def test_what_is_said_is_the_likeliest_word_each_time(made, options, tmp_path):
    objective, params, _ = made
    folder = exported.write(tmp_path / "run", params, options)
    model = ssl_audio.load(folder)
    assert isinstance(model, Captioner) and "prefix" in model.offers
    sound = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    samples = options["data"]["entries"]["audio"]["samples"]
    clip = sound[:samples]
    ((_, said),) = model.numbers([clip])
    told = model.predict("prefix", clip, 16_000)
    lm, known = objective.words.model, []
    weights, given = {"params": params["words"]["model"]}, jnp.asarray(told)[None]
    passes = jax.jit(lm.apply)
    for i in range(model.text.length):
        columns = np.full((1, model.text.length, 1), lm.codes)  # later ones are not seen
        columns[0, 1 : 1 + i, 0] = known
        known.append(int(np.argmax(passes(weights, jnp.asarray(columns), given)[0, i, 0])))
        if known[-1] == objective.end:
            known.pop()
            break
    assert said == known
    assert model.caption(clip, 16_000) == model.text.words.decode(known)
    several = model.caption([clip, sound], 16_000)
    assert several[0] == model.caption(clip, 16_000)
    # Its features are those of an encoder; a longer clip is heard in windows, all of it.
    assert model.embed(clip, 16_000).shape == (model.width,)
    other = sound.copy()
    other[-2000:] = 0
    heard = []
    for audio in (sound, other):
        batch = dict(audio=audio[None, -samples:], length=np.array([samples], np.int32))
        heard.append(model._prefix(model._on_device, model._extra_on_device, batch))
    assert np.abs(heard[0] - heard[1]).max() > 1e-3


def test_wrong_options_are_refused(options):
    for change, said in (
        (dict(end=10_000), "end is 10000"),
        (dict(words=dict(options["objective"]["words"], model=dict(
            options["objective"]["words"]["model"], books=2), pattern=dict(
            kind="patterns:Delay", books=2))), "has 2 books; wanted 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            config.build(dict(options["objective"], **change), "objectives")


def test_captions_without_words_are_refused_and_long_ones_are_told_of(tmp_path, caplog):
    table = tmp_path / "t.jsonl"
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", np.full(1600, 0.1), 16_000)

    def load(*texts):
        rows = [dict(path=f"{i}.wav", text=text) for i, text in enumerate(texts)]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return config_files.load(f"caption:laptop,data={table}")

    for text in ("  ", ["rain", ""], "!?"):
        with pytest.raises(ValueError, match="data: clip .* has text .*; wanted words"):
            load("rain", text)
    with pytest.raises(ValueError, match="1 of 2 clips have no `text`"):
        load("rain", None)
    load(" ".join(["rain"] * 15), "rain")
    assert "are cut there" not in caplog.text
    load(" ".join(["rain"] * 16), "rain")
    assert "1 of 2 captions have more than 15 words and signs, and are cut there" in caplog.text


def test_a_fold_that_there_is_not_is_refused(tmp_path):
    (tmp_path / "meta.csv").write_text("filename,fold,category\na.ogg,1,dog\n")
    with pytest.raises(ValueError, match="fold=9: wanted one of 1 to 5"):
        config_files.load(f"caption:laptop,data={tmp_path},fold=9")
