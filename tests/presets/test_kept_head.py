"""`finetune:keep_head`: from which head a run begins, and which heads and runs are refused."""

import json

import pytest
from published import load
from reference import ROOT

from ssl_audio import config

CONFIG = ROOT / "configs/finetune.py"
TASK = "task=esc10,root=DATA"


def write(folder, options):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.plain(options)))
    return folder


@pytest.fixture
def encoder(tmp_path):
    return write(tmp_path / "encoder", load(ROOT / "configs/ssast.py", "size=tiny"))


@pytest.fixture
def heads(tmp_path, encoder):
    """Return what `folds` with adapt=head leaves, of two folds."""
    for fold in (1, 2):
        options = config.plain(load(CONFIG, f"{TASK},pretrained={encoder},adapt=head,fold={fold}"))
        options["data"]["entries"]["label"]["names"] = [
            f"class {i}" for i in range(10)
        ]  # as training does
        write(tmp_path / f"heads/fold{fold}", options)
    return tmp_path / "heads"


def test_each_fold_begins_from_its_own_head(heads):
    for fold in (1, 2):
        made = load(CONFIG, f"{TASK},pretrained={heads},keep_head,fold={fold}")
        start = made.warm_start.encoder
        assert start.path == str(heads / f"fold{fold}") and "head" in start.take
        assert "adapt" not in made, "everything learns"
    assert "head" not in load(CONFIG, f"{TASK},pretrained={heads}").warm_start.encoder.take
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load(CONFIG, f"{TASK},pretrained={heads},fold=3")


def test_a_run_that_knows_the_labels_of_the_test_is_refused(heads):
    for more in ("", ",keep_head"):
        with pytest.raises(ValueError, match="it has learned from the labels of fold 1, which"):
            load(CONFIG, f"{TASK},pretrained={heads}/fold2{more}")
    load(CONFIG, f"{TASK},pretrained={heads}/fold1,keep_head")
    load(CONFIG, f"task=esc10,root=OTHER,pretrained={heads}/fold2")  # other clips


def test_so_is_one_that_learned_from_few_of_them(tmp_path, encoder):
    semi = ROOT / "configs/semi_supervised.py"
    few = write(
        tmp_path / "few", load(semi, f"laptop,{TASK},pretrained={encoder},labels=10%,fold=2")
    )
    with pytest.raises(ValueError, match="learned from the labels of fold 1"):
        load(CONFIG, f"{TASK},pretrained={few}")
    load(CONFIG, f"{TASK},pretrained={few},fold=2")


def test_so_is_one_that_learned_from_more_than_the_test(tmp_path, encoder, monkeypatch):
    """ESC-10 is of ESC-50, speakers and takes share clips, and a place may be written otherwise."""
    monkeypatch.chdir(tmp_path)
    esc50 = write(
        tmp_path / "esc50", load(CONFIG, f"task=esc50,root=DATA,pretrained={encoder},fold=2")
    )
    with pytest.raises(ValueError, match="learned from the labels of fold 1, which"):
        load(CONFIG, f"task=esc10,root={tmp_path}/DATA,pretrained={esc50}")
    load(CONFIG, f"{TASK},pretrained={esc50},fold=2")
    speakers = "task=unseen_speaker_digit,root=DATA"
    digits = write(
        tmp_path / "digits", load(CONFIG, f"task=spoken_digit,root=DATA,pretrained={encoder}")
    )
    unseen = write(tmp_path / "unseen", load(CONFIG, f"{speakers},pretrained={encoder},fold=2"))
    for task, path in ((speakers, digits), ("task=spoken_digit,root=DATA", unseen)):
        with pytest.raises(ValueError, match="labels of clips of sets.spoken_digit, which"):
            load(CONFIG, f"{task},pretrained={path}")
    load(CONFIG, f"task=spoken_digit,root=DATA,pretrained={digits}")
    load(CONFIG, f"{speakers},pretrained={unseen},fold=2")


def test_heads_that_do_not_fit_are_refused(tmp_path, encoder, heads):
    other = write(
        tmp_path / "audioset", load(CONFIG, f"task=audioset20k,root=DATA,pretrained={encoder}")
    )
    digits = write(
        tmp_path / "digits", load(CONFIG, f"task=spoken_digit,root=DATA,pretrained={encoder}")
    )
    for path, why in (
        (
            digits,
            "classes of .* others than those here, first 'sets.spoken_digit' for 'sets.esc/esc10'",
        ),
        (encoder, "has no head of classes"),
        (other, "the head of .* is .*527.*, wanted .*10"),
    ):
        with pytest.raises(ValueError, match=f"keep_head: .*{why}"):
            load(CONFIG, f"{TASK},pretrained={path},keep_head")
    for more in ("", f",pretrained={heads}/fold1,scratch"):
        with pytest.raises(ValueError, match="'keep_head': it would change nothing"):
            load(CONFIG, f"{TASK}{more},keep_head")
