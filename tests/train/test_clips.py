"""Lengths and rates of clips that contradict each other are refused before anything is computed."""

import dataclasses

import jax
import pytest

from ssl_audio import config, config_files
from ssl_audio.data.entries import Audio
from ssl_audio.data.source import Manifest
from ssl_audio.distributed import sharding
from ssl_audio.train import clips
from ssl_audio.train.clips import check_clips, tell_of_unused
from ssl_audio.train.loop import plan, train
from ssl_audio.train.run import Run


def check(place, *overrides):
    options = config_files.load(place, [f"--config.{text}" for text in overrides])
    check_clips(config.make(Run, options), config.plain(options))


@pytest.mark.parametrize("name", sorted(config_files.packaged()))
@pytest.mark.parametrize("mode", ["", "laptop", "runlocal"])
def test_the_configs_of_the_package_agree_with_themselves(name, mode, tmp_path):
    needs_root = name in ("finetune", "fsd50k", "passt", "semi_supervised") and mode != "runlocal"
    if mode == "laptop":
        mode = {"finetune": "task=esc10", "events": "seconds=5.0", "playlists": "size=base"}.get(
            name, mode
        )
    check(f"{name}:{mode}{f',root={tmp_path}' if needs_root else ''}".replace(":,", ":"))


@pytest.mark.parametrize(
    ("place", "overrides", "message"),
    [
        ("ssamba", ["data.entries.audio.samples=480000"], r"frames is 1024.*set .*frames=2998"),
        ("ssamba", ["data.entries.audio.samples=240000"], r"14\.9. s.*would not be heard"),
        ("ssamba", ["data.rate=32000"], r"data\.rate is 32000 Hz, but objective\.frontend\.rate 16000"),
        (
            "ssamba",
            ["data.rate=32000", "objective.frontend.rate=32000"],
            r"window and hop are left at .*frontend\.window=800, .*frontend\.hop=320",
        ),
        ("hubert", ["data.rate=8000"], r"data\.rate is 8000 Hz, but objective\.frontend\.rate 16000"),
        ("clap:laptop", ["data.rate=32000"], r"objective\.towers\.audio\.frontend\.rate 16000"),
        (
            "distill:runlocal",
            ["objective.teachers.untrained.frontend.rate=32000"],
            r"objective\.teachers\.untrained hears 32000 Hz, but data\.rate is 16000 Hz",
        ),
        ("asit:laptop", ["objective.crop=160000"], "would not be heard"),
        ("clap:laptop", ["evals.zero_shot.source.rate=8000"], r"evals\.zero_shot\.source\.rate is 8000"),
        ("finetune:runlocal", ["evals.test.samples=48000"], r"evals\.test\.samples=48000 gives"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(place, overrides, message):
    with pytest.raises(ValueError, match=message):
        check(place, *overrides)


def test_teachers_of_runs_with_adapters_are_looked_at_too():
    changed = ["--config.objective.teachers.untrained.frontend.rate=32000"]
    options = config.plain(config_files.load("distill:runlocal", changed))
    run = config.make(Run, options | {"adapt": {"kind": "lora"}})
    with pytest.raises(ValueError, match=r"objective\.teachers\.untrained hears 32000 Hz"):
        check_clips(run, options)


def test_lengths_of_clips_beside_are_looked_at_too():
    options = config_files.load("semi_supervised:runlocal,encoder=vit", [])
    run = config.make(Run, options)
    check_clips(run, config.plain(options))
    other = run.data.beside["unlabelled"]
    entries = {**other.entries, "audio": Audio(48_000)}
    data = dataclasses.replace(
        run.data, beside={"unlabelled": dataclasses.replace(other, entries=entries)}
    )
    said = r"^data\.beside\.unlabelled\.entries\.audio\.samples=48000 gives .* would not be heard"
    with pytest.raises(ValueError, match=said):
        check_clips(dataclasses.replace(run, data=data), config.plain(options))


def test_what_follows_is_accepted(caplog):
    longer = ["data.entries.audio.samples=480000", "objective.frontend.frames=3008"]
    check("ssamba", *longer, "objective.encoder.positions.grid=(8,188)")
    rates = [
        "data.rate=32000",
        "objective.frontend.rate=32000",
        "data.entries.audio.samples=320000",
    ]
    check("ssamba", *rates, "objective.frontend.window=800", "objective.frontend.hop=320")
    caplog.set_level("WARNING", "ssl_audio")
    check("ssamba", "data.entries.audio.samples=32000")
    assert "fills 19 % of objective.frontend.frames=1024" in caplog.text


def test_training_refuses_before_it_writes(tmp_path):
    options = config_files.load("ssamba:runlocal", ["--config.data.entries.audio.samples=99999"])
    with pytest.raises(ValueError, match="would not be heard"):
        train(options, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_table_says_and_training_does_not_look_at_is_told(tmp_path, caplog):
    table = tmp_path / "list.csv"
    rows = [f"{i}.wav,{'train' if i % 3 else 'eval'},{i % 2}" for i in range(9)]
    table.write_text("\n".join(["path,split,weight", *rows]))

    def said(*overrides):
        caplog.clear()
        given = [f"--config.{text}" for text in overrides]
        options = config_files.load(f"ssamba:runlocal,data={table}", given)
        tell_of_unused(config.make(Run, options))
        return " ".join(
            record.getMessage() for record in caplog.records if record.levelname == "WARNING"
        )

    assert "3 of split 'test' of its 9 clips are trained on as well" in said()
    assert "column 'weight' is not used" in said("data.sources.list_csv.split=train")
    assert "trained on" not in said("data.sources.list_csv.split=train")
    assert "weight" not in said("data.entries.weight.kind=entries:Weight")


def test_clips_of_pipelines_beside_are_named_too(tmp_path, caplog):
    options = config_files.load("semi_supervised:runlocal", [])
    run = config.make(Run, options)
    batches = run.data.batches()
    batch = next(batches)
    batches.close()
    found = clips.names(run.data, batch)
    assert [path for path, _ in clips.pipelines(run.data)] == ["data", "data.beside.unlabelled"]
    assert len(found) == sum(run.data.batch_sizes.values())
    other = run.data.beside["unlabelled"]
    assert found[-1] == "unlabelled." + other.ids(batch["unlabelled_index"])[-1]

    table = tmp_path / "list.csv"
    table.write_text("path,split\na.wav,train\nb.wav,test\n")
    source = Manifest(str(table), rate=run.data.rate)
    other = dataclasses.replace(other, sources={"mine": source})
    data = dataclasses.replace(run.data, beside={"unlabelled": other})
    tell_of_unused(dataclasses.replace(run, data=data, evals={}))
    assert "data.beside.unlabelled.sources.mine: 1 of split 'test' of its 2 clips" in caplog.text


@pytest.mark.parametrize(("name", "counts"), [("ssamba", False), ("finetune", True)])
@pytest.mark.parametrize("adapt", [False, True])
def test_weights_that_the_objective_takes_no_notice_of_are_told(name, counts, adapt, caplog):
    given = ["--config.data.entries.weight.kind=entries:Weight"]
    options = config.plain(config_files.load(f"{name}:runlocal", given))
    run = config.make(Run, options | ({"adapt": {"kind": "lora"}} if adapt else {}))
    mesh = run.sharding.mesh()
    with jax.set_mesh(mesh):
        state = plan(run, mesh, total=4, epoch=2)[2]
        tell_of_unused(run, state, sharding.spec(run.data.spec(), mesh))
    told = "takes no notice of it" in caplog.text
    assert told != counts and ("MaskedSpectrogram takes" in caplog.text) == told
