"""Stages that are gone through once: trainings and files in turn, what each is told, going on."""

import json
import pathlib

import pytest
from reference import ROOT

from ssl_audio import config, config_files
from ssl_audio.distributed import processes
from ssl_audio.inference import kmeans
from ssl_audio.storage import written
from ssl_audio.train import loop, stages

CONFIG = f"{ROOT}/configs/unfused.py"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Return a folder, what was trained there and what was clustered; nothing is computed."""
    digits = tmp_path / "digits"
    digits.mkdir()
    for n in range(50):
        (digits / f"{n % 10}_theo_{n // 10 * 7}.wav").touch()
    trained, clustered, stop = [], [], set()

    def train(options, workdir):
        step = 1 if workdir.name in stop else 10_000
        (workdir / f"checkpoints/{step}").mkdir(parents=True, exist_ok=True)
        trained.append((workdir.name, config.plain(options)))

    def cluster(words):
        clustered.append(words)
        if "fail" in stop:
            raise ValueError("killed")
        table = pathlib.Path(words[words.index("--out") + 1])
        table.write_text("path,label\n" + "".join(f"{n}.wav,cluster_{n % 4}\n" for n in range(8)))

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(kmeans, "main", cluster)
    monkeypatch.setattr(processes, "start", lambda *_: None)
    monkeypatch.setattr(written, "warm_start", lambda path: dict(encoder=dict(path=path)))
    return tmp_path, trained, clustered, stop


def given(root, more="", *overrides):
    text = f"{CONFIG}:laptop,task=spoken_digit,root={root}/digits{more}"
    return ["--config", text, "--workdir", str(root / "runs"), *overrides]


def test_each_stage_is_told_what_the_one_before_wrote(work):
    root, trained, clustered, _ = work
    done = stages.main(given(root, ",labels=3,draw=5,clusters=4", "--config.seed=7"))
    names = ["1_teacher", "2_labels.csv", "3_student", "4_finetune"]
    assert [path.name for path in done] == names
    assert [name for name, _ in trained] == [names[0], names[2], names[3]]
    teacher, student, finetune = (options for _, options in trained)
    assert teacher["seed"] == student["seed"] == 7 and teacher["objective"]["clips"] == 40
    (words,) = clustered
    told = dict(zip(words[1::2], words[2::2], strict=True))
    assert told["--checkpoint"] == str(root / "runs/1_teacher") and told["--codes"] == "4"
    # All training clips are clustered, not only the few that have labels later.
    source = config_files.load(told["--config"]).data.sources.spoken_digit
    assert (source.kind, source.split) == ("sets.spoken_digit", "train")
    assert student["data"]["sources"]["pseudo_labels"]["path"] == str(root / "runs/2_labels.csv")
    # Heads are as large as the table has clusters.
    objective = student["objective"]
    sizes = (objective["head"]["classes"], objective["shallow"]["out"])
    assert sizes == (4, 4) and student["data"]["entries"]["label"]["classes"] == 4
    few = finetune["data"]["sources"]["spoken_digit"]
    assert (few["kind"], few["per_class"], few["seed"]) == ("few_labels", 3, 5)
    assert finetune["warm_start"]["encoder"]["path"] == str(root / "runs/3_student")
    assert finetune["objective"]["encoder"] == objective["encoder"]


def test_the_same_command_goes_on_and_a_file_is_written_once(work):
    root, trained, clustered, stop = work
    stop.add("fail")
    with pytest.raises(ValueError, match="killed"):
        stages.main(given(root))
    assert [name for name, _ in trained] == ["1_teacher"] and len(clustered) == 1
    stop.clear()
    stop.add("3_student")
    assert len(stages.main(given(root))) == 3 and len(clustered) == 2
    stop.clear()
    assert len(stages.main(given(root))) == 4 and len(clustered) == 2


def test_a_file_that_was_made_with_other_arguments_is_not_kept_in_silence(work):
    root, _, clustered, stop = work
    stages.main(given(root, ",clusters=4"))
    with pytest.raises(ValueError, match=r"2_labels.csv was made with .*4.*now .*5.*delete"):
        stages.main(given(root, ",clusters=5"))
    stages.main(given(root, ",clusters=4"))
    assert len(clustered) == 1
    (root / "runs/2_labels.csv").unlink()
    stop.add("fail")
    with pytest.raises(ValueError, match="killed"):
        stages.main(given(root, ",clusters=5"))
    stop.clear()
    stages.main(given(root, ",clusters=5"))
    assert len(clustered) == 3


def test_processes_stay_in_step_when_one_finds_the_file_written_already(work, monkeypatch):
    root, *_ = work
    told = []
    monkeypatch.setattr(processes, "from_lead", lambda make: told.append(make()))
    stages.main(given(root))
    stages.main(given(root))
    assert told == [str(root / "runs/2_labels.csv")] * 2


@pytest.mark.parametrize(
    "more, message",
    [
        (",clusters=-1", "clusters=-1"),
        (",clusters=41", "has 40 training clips"),
        (",labels=9", "9"),
        (",data=synthetic,root=nowhere", "nowhere"),
    ],
)
def test_what_later_stages_lack_is_said_before_the_first(more, message, work, capsys):
    root, trained, _, _ = work
    config = f"{CONFIG}:laptop,task=spoken_digit,root={root}/digits{more}"
    if "root=" in more:
        config = f"{CONFIG}:laptop,task=spoken_digit{more}"
    with pytest.raises(SystemExit):
        stages.main(["--config", config, "--workdir", str(root / "runs")])
    assert message in capsys.readouterr().err and not trained


def test_another_encoder_can_be_the_teacher(work, tmp_path):
    root, trained, clustered, _ = work
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    parts = {part: {"kind": "x"} for part in ("frontend", "tokenizer", "encoder")}
    (teacher / "config.json").write_text(json.dumps({"objective": parts}))
    done = stages.main(given(root, f",teacher={teacher}"))
    assert [path.name for path in done] == ["1_labels.csv", "2_student", "3_finetune"]
    assert clustered[0][clustered[0].index("--checkpoint") + 1] == str(teacher)
    assert "--codes" not in clustered[0] and len(trained) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config", f"{CONFIG}:laptop"], "say where the data is"),
        (["--config", f"{CONFIG}:root=.,stage=teacher"], "`ssl-audio stages` sets it"),
        (["--config", f"{CONFIG}:root=.", "--rounds", "3"], "leave out --rounds"),
        (["--config", f"{ROOT}/configs/ssamba.py"], "names no STAGES"),
        (["--config", f"{ROOT}/configs/openbeats.py", "--rounds", "0"], "wanted 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        stages.main([*arguments, "--workdir", str(tmp_path)])
    assert message in capsys.readouterr().err
