"""The fine-tuning recipes: each resolves and builds; the encoder is that of the pretrained run."""

import json

import encoders
import jax
import numpy as np
import pytest
import soundfile
from published import CONFIGS, load

from ssl_audio import config
from ssl_audio.data.entries import Weight
from ssl_audio.presets import own_labels
from ssl_audio.train.run import Inference, Run

(PATH,) = [path for path in CONFIGS if path.stem == "finetune"]
FOLDS = {"esc50": 5, "esc10": 5, "emotion": 5, "unseen_speaker_digit": 6, "urbansound8k": 10}
SPLITS = (
    "speech_commands",
    "speech_commands_v1",
    "audioset20k",
    "audioset2m",
    "fsd50k",
    "speaker",
    "spoken_digit",
    "birdset",
)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Return a workdir with a config and no checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    (samba,) = [path for path in CONFIGS if path.stem == "ssamba"]
    options = config.plain(load(samba, "size=tiny"))
    (folder / "config.json").write_text(json.dumps(options))
    return folder, options["objective"]


@pytest.mark.parametrize("task", [*FOLDS, *SPLITS])
def test_every_recipe_builds(task, pretrained):
    folder, objective = pretrained
    made = load(PATH, f"task={task},root=DATA,pretrained={folder}")
    run = config.make(Run, made)
    assert config.plain(made.objective.encoder) == config.plain(objective["encoder"])
    assert (
        run.objective.head.classes == run.data.entries["label"].classes == run.evals["test"].classes
    )
    assert run.evals["test"].samples == run.data.entries["audio"].samples
    assert run.warm_start["encoder"].path == str(folder)
    assert run.checkpoint.best.split("/")[0] in ("", *run.evals)
    train, test = made.data.sources[task], made.evals.test.source
    if task in FOLDS:
        assert set(train.folds) | set(test.folds) == set(range(1, FOLDS[task] + 1))
        assert test.folds == (1,) and 1 not in train.folds
        with pytest.raises(ValueError, match=f"has folds 1 to {FOLDS[task]}"):
            load(PATH, f"task={task},root=DATA,fold={FOLDS[task] + 1}")
    else:
        assert train != test


def test_mamba_has_rates_of_its_own_on_audioset20k(pretrained):
    folder, _ = pretrained
    given = load(PATH, f"task=audioset20k,root=DATA,pretrained={folder}")
    assert (given.optim.lr, given.data.batch_size, given.steps) == (1e-4, 24, "50ep")
    assert dict(given.optim.rates) == {"^head/": 3.0} and given.optim.average_from == "12ep"
    assert load(PATH, "task=audioset20k,root=DATA").optim.lr == 5e-5


@pytest.mark.parametrize("task", ["spoken_digit", "unseen_speaker_digit"])
def test_a_pretrained_encoder_of_digits_learns_at_lower_rates(task, pretrained):
    folder, _ = pretrained

    def rates(more):
        optim = load(PATH, f"task={task},root=DATA,{more}").optim
        return optim.lr, optim.layer_decay

    assert rates(f"pretrained={folder}") == (4e-4, 0.6)
    assert rates(f"pretrained={folder},scratch") == rates("encoder=ssamba") == (1e-3, 0.75)
    assert rates(f"pretrained={folder},adapt=lora") == (1e-3, 1.0)


def test_from_scratch(pretrained):
    folder, objective = pretrained
    same = load(PATH, f"root=DATA,pretrained={folder},scratch")
    assert "warm_start" not in same
    assert config.plain(same.objective.encoder) == config.plain(objective["encoder"])
    assert load(PATH, "root=DATA,size=small").objective.encoder.width == 384


def test_an_audio_text_model_takes_a_pretrained_encoder_and_gives_it_back(pretrained, tmp_path):
    folder, objective = pretrained
    (clap,) = [path for path in CONFIGS if path.stem == "clap"]
    made = load(clap, f"laptop,encoder={folder}")
    run = config.make(Run, made)
    tower = config.plain(made.objective.towers.audio)
    assert tower["encoder"] == config.plain(objective["encoder"])
    assert (
        run.warm_start["encoder"].into == "audio/"
        and run.optim.rates["^audio/(tokenizer|encoder)/"] < 1
    )
    (tmp_path / "config.json").write_text(json.dumps(config.plain(made)))
    tuned = load(PATH, f"root=DATA,pretrained={tmp_path}")
    assert config.plain(tuned.objective.encoder) == tower["encoder"]
    assert tuned.warm_start.encoder.out_of == "audio/"


def test_an_encoder_of_sound_at_another_rate_is_refused(tmp_path):
    clap, bird, wave = (
        path for name in ("clap", "birdmae", "wav2vec2") for path in CONFIGS if path.stem == name
    )
    for other, message in ((bird, "32000 Hz"), (wave, "wants patches")):
        made = json.dumps(config.plain(load(other, "runlocal")))
        (tmp_path / "config.json").write_text(made)
        with pytest.raises(ValueError, match=message):
            load(clap, f"laptop,encoder={tmp_path}")


def test_a_warm_start_without_a_name_is_refused(pretrained):
    made = config.plain(load(PATH, f"root=DATA,pretrained={pretrained[0]}"))
    made["warm_start"] = made["warm_start"]["encoder"]
    with pytest.raises(
        TypeError, match=r"config.warm_start.\w+: wanted a mapping.*warm_start.NAME"
    ):
        config.make(Run, made)


def test_a_long_clip_is_encoded_in_windows_as_long_as_those_of_pretraining(tmp_path):
    (ssast,) = [path for path in CONFIGS if path.stem == "ssast"]
    made = config.plain(load(ssast, "laptop"))
    (tmp_path / "config.json").write_text(json.dumps(made))
    tuned = load(PATH, f"task=esc10,root=DATA,pretrained={tmp_path}")
    patch = made["objective"]["tokenizer"]["patch"][1]
    assert tuned.objective.window * patch == made["objective"]["frontend"]["frames"] == 128
    assert tuned.objective.frontend.frames % 128 == 0
    assert (
        "window" not in load(PATH, f"task=spoken_digit,root=DATA,pretrained={tmp_path}").objective
    )
    assert "window" not in load(PATH, "task=esc10,root=DATA").objective


def test_mistakes_are_named(pretrained, tmp_path):
    folder, _ = pretrained
    for arg, message in (
        ("task=esc", "task 'esc': wanted one of esc50"),
        ("task=esc50", "say where the data is"),
        (f"root=DATA,pretrained={folder},size=base", "size: these come from the pretrained run"),
        (f"root=DATA,pretrained={tmp_path}", "no config.json; wanted the workdir"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load(PATH, arg)
    (tmp_path / "config.json").write_text(json.dumps(dict(objective=dict(encoder={}))))
    with pytest.raises(ValueError, match="its objective has no frontend, tokenizer.*of an encoder"):
        load(PATH, f"root=DATA,pretrained={tmp_path}")
    probe = dict(kind="probe", base=dict(encoder={}), head={})
    (tmp_path / "config.json").write_text(json.dumps(dict(objective=probe)))
    with pytest.raises(ValueError, match="It is a probe: give the run or folder of the encoder"):
        load(PATH, f"root=DATA,pretrained={tmp_path}")


def test_audio_comes_at_the_rate_of_the_encoder(tmp_path):
    (bird,) = [path for path in CONFIGS if path.stem == "birdmae"]
    options = config.plain(load(bird, ""))
    (tmp_path / "config.json").write_text(json.dumps(options))
    made = load(PATH, f"task=birdset,root=DATA,pretrained={tmp_path}")
    run = config.make(Run, made)
    assert run.objective.frontend.rate == run.data.rate == 32_000
    assert run.data.entries["audio"].samples == run.evals["test"].samples == 160_000
    assert {made.data.sources.birdset.rate, made.evals.test.source.rate} == {32_000}
    assert run.objective.tokenizer.stride == (16, 16) and run.optim.layer_decay == 0.75


def test_encoders_without_one_stack_of_layers(tmp_path):
    events = PATH.with_name("events.py")
    cnn, htsat = (encoders.audio_text(tmp_path / name, name) for name in ("cnn", "htsat"))
    for arg in ("task=esc10,root=DATA", "task=esc10,root=DATA,adapt=head"):
        assert load(PATH, f"{arg},pretrained={cnn}").optim.layer_decay == 1
    assert load(events, f"pretrained={cnn},runlocal").optim.layer_decay == 1
    for path, arg in ((PATH, "root=DATA"), (PATH, "data=DATA"), (events, "data=DATA")):
        with pytest.raises(ValueError, match="tokenizer 'folded'.*evaluate --checkpoint"):
            load(path, f"{arg},pretrained={htsat}")


def test_data_that_leaves_nothing_for_validation_is_told(tmp_path, caplog):
    rows = ["path,label,speaker,take"]
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.full(8000, 0.1), 16_000)
        rows.append(f"{i}.wav,{'ab'[i % 2]},one,{i}")
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    argument = f"data={tmp_path}/clips.csv,encoder=ssast,size=tiny"
    for more, parts, told in (("", [], 1), (",share=0", [], 0), (",by=take", ["validation"], 0)):
        caplog.clear()
        with caplog.at_level("WARNING"):
            made = load(PATH, argument + more)
        assert list(made.evals) == parts
        assert caplog.text.count("no clip is left for validation") == told


def test_clips_of_fsd50k_are_tested_whole_and_predicted_alike(pretrained):
    folder, _ = pretrained
    made = load(PATH, f"task=fsd50k,root=DATA,pretrained={folder}")
    run = config.make(Run, made)
    audio = run.data.entries["audio"]
    for test in run.evals.values():
        assert (test.hop, test.views, test.average) == (audio.samples // 2, 1, "sigmoid")
    assert audio.crop == "random"
    assert run.inference == Inference(average="sigmoid")
    (baseline,) = [path for path in CONFIGS if path.stem == "fsd50k"]
    found = config.make(Run, load(baseline, "root=DATA"))
    assert found.inference == Inference(average=found.evals["test"].average)
    assert found.evals["test"].windows and "patches" not in found.evals


@pytest.mark.parametrize("task", ["esc10", "esc50", "fsd50k", "speech_commands"])
@pytest.mark.parametrize("tokens", ["bins", "patches"])
def test_what_has_no_patches_of_a_filterbank_every_10_ms_keeps_its_own(task, tokens, tmp_path):
    mel = dict(kind="mel", rate=22_050, bins=16, window=1470, hop=735, high=0.0)
    norm = dict(kind="norms:BatchNorm")
    cnn = dict(kind="cnn", channels=(4,), convolutions=1, norm=norm)
    parts = dict(frontend=mel, tokenizer=dict(kind="bins", norm=norm), encoder=cnn)
    if tokens == "patches":
        made = encoders.options(patch=(16, 2), frames=30)["objective"]
        parts = dict(frontend=mel | dict(frames=30), encoder=made["encoder"])
        parts["tokenizer"] = made["tokenizer"]
    entries = dict(audio=dict(kind="entries:Audio", samples=22_050))
    options = dict(objective=dict(kind="features", **parts), data=dict(entries=entries))
    (tmp_path / "config.json").write_text(json.dumps(options))
    run = config.make(Run, load(PATH, f"task={task},root=DATA,pretrained={tmp_path}"))
    seconds = dict(esc10=5.12, esc50=5.0, fsd50k=10.0, speech_commands=1.0)[task]
    samples, frontend = run.data.entries["audio"].samples, run.objective.frontend
    assert abs(samples / 22_050 - seconds) < 0.15  # not three times as long, mostly padding
    assert frontend.count(samples) * 735 / 22_050 == pytest.approx(seconds, abs=0.15)
    if augment := run.objective.spec_augment:
        freq = dict(esc50=24, fsd50k=48, speech_commands=48)[task]
        assert augment.freq == freq // 8 and augment.time < frontend.count(samples)
    assert (frontend.mean, frontend.std, frontend.hop) == (0.0, 1.0, 735)
    spec = {
        "audio": ((2, samples), np.float32),
        "length": ((2,), np.int32),
        "label": ((2, run.data.entries["label"].classes), np.float32),
    }
    batch = {name: jax.ShapeDtypeStruct(*of) for name, of in spec.items()}
    params, extra = jax.eval_shape(run.objective.init, jax.random.key(0), batch)

    def loss(params, batch):
        return run.objective.loss(params, extra, batch, jax.random.key(0), train=True).total

    assert jax.eval_shape(loss, params, batch).shape == ()
    with pytest.raises(ValueError, match="stride"):
        load(PATH, f"task={task},root=DATA,pretrained={tmp_path},stride=8x8")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Return a workdir of an encoder of 96 frames, 1.014 s."""
    folder = tmp_path_factory.mktemp("short")
    (cola,) = [path for path in CONFIGS if path.stem == "cola"]
    (folder / "config.json").write_text(json.dumps(config.plain(load(cola, "laptop"))))
    return folder


@pytest.mark.parametrize(
    ("task", "views"), [("esc10", 5), ("esc50", 5), ("speech_commands", 1), ("birdset", 5)]
)
def test_an_encoder_of_short_clips_hears_all_of_a_longer_clip(task, views, short):
    made = load(PATH, f"task={task},root=DATA,pretrained={short}")
    heard = made.data.entries.audio
    assert heard.samples == 16_224 and made.evals.test.samples == 16_224
    assert made.evals.test.views == views
    if views > 1:
        assert heard.crop == "random"
    config.make(Run, made)


def test_an_encoder_of_short_clips_is_tested_on_whole_clips_where_windows_lie_apart(short):
    made = load(PATH, f"task=fsd50k,root=DATA,pretrained={short}")
    assert made.evals.test.views == 1 and made.evals.test.hop == 16_224 // 2
    config.make(Run, made)


def test_an_encoder_of_short_clips_hears_all_of_ones_own_longer_clips(short, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(5):
            soundfile.write(tmp_path / name / f"{n}.wav", np.ones(8 * 16_000) / 2, 16_000)
    made = load(PATH, f"data={tmp_path},pretrained={short}")
    assert made.evals.validation.samples == 16_224 and made.evals.validation.views == 8


def test_positions_that_count_from_the_begin_take_clips_as_long_as_they_are():
    """Whisper hears 30 s: a clip of 5 s in that much silence costs nine times as much."""
    parts = dict(
        frontend=dict(kind="mel", bins=80, hop=160, window=400, low=0.0, high=8000.0, frames=3000),
        tokenizer=dict(kind="conv_stem", width=8),
        encoder=dict(positions=dict(kind="positions:Learned", grid=(1, 1500), cut="start")),
    )
    made, samples = own_labels.cut(parts, 5.005, 0)
    assert made["frontend"]["frames"] == 502 and samples == 400 + 501 * 160
    assert "window" not in made  # not encoded in pieces
    longer, samples = own_labels.cut(parts, 40.0, 0)
    assert longer["frontend"]["frames"] == 3000 and samples == 400 + 2999 * 160
    for positions in (dict(kind="positions:Learned", grid=(1, 1500)), None):
        fixed, samples = own_labels.cut(parts | dict(encoder=dict(positions=positions)), 5.0, 0)
        assert fixed["frontend"]["frames"] == 3000 and samples == 80_000


def test_weights_of_a_table_count_in_the_loss(pretrained, tmp_path):
    rows = [f"{i}.wav,{'ab'[i % 2]},{i if i < 3 else ''}" for i in range(12)]
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.wav", np.full(8000, 0.1), 16_000)
    table = tmp_path / "list.csv"
    for column in ("weight", "mass"):
        table.write_text("\n".join([f"path,label,{column}", *rows]))
        made = load(PATH, f"data={table},pretrained={pretrained[0]}")
        entries = config.make(Run, made).data.entries
        assert ("weight" in entries) == (column == "weight")
    mixed = Weight().mix({"weight": np.float32(2)}, {"weight": np.float32(0)}, 0.75)
    assert mixed == {"weight": 1.5}


def test_what_is_scored_has_as_many_labels_as_what_is_learned(pretrained, tmp_path):
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.wav", np.full(8000, 0.1), 16_000)
    one, several = tmp_path / "one.csv", tmp_path / "several.csv"
    one.write_text("\n".join(["path,label", *(f"{i}.wav,{'ab'[i % 2]}" for i in range(12))]))
    rows = [f"{i}.wav,{('a', 'a;b', 'b')[i % 3]}" for i in range(12)]
    several.write_text("\n".join(["path,labels", *rows]))
    made = load(PATH, f"data={several},validation={one},pretrained={pretrained[0]}")
    source = config.make(Run, made).evals["validation"].source
    assert source.info.multilabel and source.meta(0)["label"] == (0,)
    assert made.checkpoint.best == "validation/mAP"
    with pytest.raises(ValueError, match="test=.*several.csv: clips have several labels"):
        load(PATH, f"data={one},test={several},pretrained={pretrained[0]}")
