"""The comparison of semi-supervised methods: tasks as published, parts, batches, ramps, any encoder."""

import json
import math

import pytest
from published import CONFIGS, load

from ssl_audio import config
from ssl_audio.frontend.views import published
from ssl_audio.train.run import Run

(PATH,) = [path for path in CONFIGS if path.stem == "semi_supervised"]
METHODS = (
    "supervised", "mean_teacher", "deep_co_training", "mix_match", "re_mix_match", "fix_match", "uda",
)  # fmt: skip


def made(arg):
    options = load(PATH, f"root=DATA,{arg}")
    return options, config.make(Run, options)


@pytest.mark.parametrize(
    ("task", "frames", "epoch", "folds"),
    [("esc10", 431, 9, 5), ("urbansound8k", 173, 55, 10), ("speech_commands", 32, 596, 0)],
)
def test_features_and_lengths_are_the_published_ones(task, frames, epoch, folds):
    options, run = made(f"task={task}")
    frontend = run.objective.frontend
    assert (frontend.bins, frontend.window, frontend.hop, frontend.scale, frontend.area) == (
        64, 2048, 512, "htk", False,
    )  # fmt: skip
    assert frontend.count(run.data.entries["audio"].samples) == frames
    assert int(run.steps) == 300 * epoch and run.optim.lr == 1e-3
    assert run.optim.weight_decay == 0 and run.optim.schedule == "cosine"
    assert run.objective.encoder.times == 2
    train, test = options.data.sources[task].source, options.evals.test.source
    if folds:
        assert set(train.folds) | set(test.folds) == set(range(1, folds + 1))
        assert not set(train.folds) & set(test.folds)
        with pytest.raises(ValueError, match=f"has folds 1 to {folds}"):
            load(PATH, f"root=DATA,task={task},fold={folds + 1}")
    else:
        assert (train.split, test.split) == ("train", "test")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("short", ["", ",laptop"])
def test_every_method_has_its_parts(method, short):
    options, run = made(f"method={method},labels=10{short}")
    few = options.data.sources.esc10
    assert (few.kind, few.part, few.per_class) == ("few_labels", "labelled", 10)
    beside = options.data.get("beside", {})
    wanted = {"supervised": set(), "deep_co_training": {"unlabelled", "second"}}
    assert set(beside) == wanted.get(method, {"unlabelled"})
    if beside:
        other = beside.unlabelled.sources.esc10
        assert (other.part, other.seed, other.source) == ("unlabelled", few.seed, few.source)
        assert "label" not in beside.unlabelled.entries
    few_of_many = method in ("mean_teacher", "deep_co_training") and not short
    sizes = (6, 58) if few_of_many else (24, 24) if short else (30, 30)
    if method == "supervised":
        assert options.data.batch_size == (24 if short else 60)
    else:
        assert (options.data.batch_size, beside.unlabelled.batch_size) == sizes
    if method == "deep_co_training":
        assert beside.second.sources.esc10 == few and beside.second.seed != options.data.seed
    else:
        weak = None if method == "uda" else config.build(published("weak"), "frontend")
        assert run.objective.weak == weak
        assert run.objective.strong == config.build(published("strong"), "frontend")
    assert run.objective.encoder.times == (1 if short else 2)


def test_weights_rise_within_the_run_where_it_is_short():
    published_, short = (made(f"method=mix_match{more}")[1] for more in ("", ",laptop"))
    assert published_.objective.weight.steps == 16_000 and int(short.steps) == 1500
    assert short.objective.weight.steps == 375 and short.objective.weight.end == 1
    teacher = made("method=mean_teacher")[1]
    assert teacher.objective.weight.steps == int(teacher.steps) * 50 // 200
    assert teacher.objective.weight.shape == "exponential"
    both = made("method=deep_co_training,laptop")[1].objective
    assert (both.agree.end, both.differ.end, both.agree.steps) == (1.0, 0.5, 750)
    always, rising = (made(f"method=re_mix_match{more}")[1].objective for more in ("", ",laptop"))
    assert [float(always.rise(step)) for step in (0, 9)] == [1, 1]
    assert [float(rising.rise(step)) for step in (1500, 9000)] == [1, 1]
    half = float(rising.refresh({}, {"rise": 0.0}, 749)["rise"])
    assert half == pytest.approx(math.exp(-5 / 4))


def test_any_encoder_learns(tmp_path):
    (samba,) = [path for path in CONFIGS if path.stem == "ssamba"]
    (tmp_path / "config.json").write_text(json.dumps(config.plain(load(samba, "laptop"))))
    _, run = made(f"task=spoken_digit,pretrained={tmp_path}")
    assert run.warm_start["encoder"].path == str(tmp_path) and run.data.rate == 16_000
    assert run.objective.encoder.depth == 4 and run.objective.head.pool == "stats"
    assert not made(f"task=spoken_digit,pretrained={tmp_path},scratch")[1].warm_start
    _, run = made(f"task=spoken_digit,pretrained={tmp_path},method=deep_co_training")
    assert [start.into for _, start in sorted(run.warm_start.items())] == ["", "second/"]
    _, run = made("encoder=ssast,size=mini")
    assert run.objective.encoder.width == 128 and not run.warm_start


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("encoder=wrn", "encoder 'wrn': wanted one of wrn28, ssast"),
        ("width=-1", "width=-1: wanted 1, 2 or 4"),
        ("method=mixmatch", "method 'mixmatch': wanted one of supervised"),
        ("task=esc", "task 'esc': wanted one of esc10"),
        ("labels=ten", "labels 'ten': wanted 10% of each class"),
        ("labels=120%", "labels '120%'"),
        ("labels=0", "labels '0'"),
        ("labels=all", "fix_match wants clips without labels"),
        ("mixup=yes", "mixup 'yes': wanted a number"),
        ("view=strong", "'view': it would change nothing"),
        ("method=supervised,view=odd", "view: got 'odd'"),
        ("size=tiny", "'size': it would change nothing"),
        ("encoder=ssast,width=2", "'width': it would change nothing"),
        ("scratch", "'scratch': it would change nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(arg, message):
    with pytest.raises(ValueError, match=message):
        made(arg)
