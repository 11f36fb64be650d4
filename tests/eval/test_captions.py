"""Captions measured: words of templates by hand, aac-metrics, the verb, and the benchmark's row."""

import csv
import importlib.util
import json
import types

import encoders
import numpy as np
import pytest
import soundfile

from ssl_audio import config, config_files
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.data.text import Words
from ssl_audio.eval import caption_verb, captioning, captions
from ssl_audio.eval.listening import Absent, Deaf, Listener
from ssl_audio.inference.captioner import Captioner
from ssl_audio.inference.load import load
from ssl_audio.storage import exported

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
SAID = ["A sound of rain.", "a sound of dog bark", "a sound of rain", "digit two"]
TRUTH = [("a sound of rain",), ("a sound of rain",), ("sound of rain", "a sound of rain"), ("x",)]


def test_exactly_the_words_whatever_their_case_and_signs():
    assert captions.plain("  A Sound, of Rãin! ") == "a sound of rain"
    assert captions.exact(SAID, TRUTH).tolist() == [1, 0, 1, 0]
    # Of the captions "a sound of rain" (three clips), "sound of rain" and "x".
    said, truth = [*SAID, "a sound of rain"], [*TRUTH, TRUTH[0]]
    assert captions.balanced(said, truth) == pytest.approx((2 / 3 + 1 + 0) / 3)
    for said, truth in (([], []), (SAID, TRUTH[:3]), (["a"], [()])):
        with pytest.raises(ValueError, match="captions: .*wanted some for each"):
            captions.check(said, truth)


def test_words_of_numbers_are_the_text_and_unknown_ones_are_marked():
    words = Words(("a", "of", "rain", "sound"), buckets=2)
    numbers = words.encode("A sound of rain", 9)
    assert words.decode(numbers) == "a sound of rain" and words.decode([*numbers, 0, 0]) == (
        "a sound of rain"
    )
    assert words.decode(words.encode("a sound of thunder", 9)) == "a sound of ?"
    signs = Words((",", ".", "a", "b"), buckets=1)
    assert signs.decode(signs.encode("a, b.", 9)) == "a, b."


def library(monkeypatch, **found):
    """Put functions in place of aac-metrics' own."""
    made = {name: lambda c, r, n=name: ({n: 0.25}, None) for name in captions.METRICS}
    monkeypatch.setattr(captions, "library", lambda: types.SimpleNamespace(**made | found))


def test_metrics_in_java_come_where_java_can_run_them(monkeypatch, caplog):
    given = {}

    def meteor(candidates, references):
        given.update(candidates=candidates, references=references)
        return {"meteor": 0.5}, None

    library(monkeypatch, meteor=meteor, spice=lambda c, r: ({"spice": 0.75}, None))
    monkeypatch.setattr(captions.shutil, "which", lambda name: "/bin/java")
    found = captions.measured(SAID, TRUTH)
    assert found["exact"] == 0.5 and found["meteor"] == 0.5
    assert found["spider"] == (0.25 + 0.75) / 2
    assert (
        given["candidates"][0] == "a sound of rain"
        and given["references"][2][1] == given["candidates"][0]
    )

    def broken(candidates, references):
        raise RuntimeError("no stanford_nlp.jar")

    library(monkeypatch, meteor=broken)
    found = captions.measured(SAID, TRUTH)
    assert "meteor" not in found and "spider" not in found and found["cider_d"] == 0.25
    assert "no stanford_nlp.jar" in caplog.text and "aac-metrics-download" in caplog.text
    monkeypatch.setattr(captions.shutil, "which", lambda name: None)
    assert "meteor" not in captions.compared(SAID, TRUTH)
    assert set(captions.compared(SAID[:1], TRUTH[:1])) == {"bleu_4", "rouge_l"}


def test_without_aac_metrics_there_are_exact_matches(monkeypatch):
    def missing():
        raise RuntimeError("pip install 'ssl_audio[caption]'")

    monkeypatch.setattr(captions, "library", missing)
    assert set(captions.measured(SAID, TRUTH)) == {"exact", "exact_balanced"}
    with pytest.raises(Absent, match=r"ssl_audio\[caption\]"):
        captioning.Captioning(template="").case(Synthetic(size=12, seconds=0.1), Deaf(), 0)


def test_free_captions_of_too_few_clips_are_refused(monkeypatch):
    library(monkeypatch)
    with pytest.raises(ValueError, match="3 clips, wanted at least 4: CIDEr-D counts words over"):
        captioning.Captioning(template="").case(Synthetic(size=3, seconds=0.1), Deaf(), 0)


@pytest.mark.skipif(
    importlib.util.find_spec("aac_metrics") is None,
    reason="BLEU, ROUGE and CIDEr NOT tested: pip install 'ssl_audio[caption]'",
)
def test_aac_metrics_of_the_truth_and_of_other_words():
    said = ["a dog barks loudly", "rain falls on a roof", "a man speaks and laughs"]
    truth = [(text,) for text in said]
    found = captions.compared(said, truth, java=False)
    assert found["bleu_4"] == pytest.approx(1) and found["rouge_l"] == pytest.approx(1)
    assert found["cider_d"] == pytest.approx(10, abs=1e-3)
    assert captions.compared([*said[1:], said[0]], truth, java=False)["cider_d"] < 1
    # Free captions: perfect ones are far above chance, which is that of other clips' words.
    names = [f"sound number {i} of many" for i in range(12)]
    protocol = captioning.Captioning(template="")
    case = captioning.Case(
        {"said": np.array(names, object)},
        {"said": np.array(names, object)},
        dict(truth=[(name,) for name in names]),
    )
    assert protocol.score(case, 0).value > 5 > protocol.score(case, 0).chance


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an untrained model whose words depend on what it hears."""
    options = config.plain(config_files.load("caption:runlocal"))
    built = config.build(options["objective"], "objectives")
    params = encoders.drawn(built, Captioner(built, {}, options).blank())
    return exported.write(tmp_path_factory.mktemp("caption"), params, options)


def test_the_verb_writes_a_table_and_says_how_good_it_is(folder, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 16_000), 16_000)
    model = load(folder)
    sound, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    wanted = model.caption(sound, rate)
    (tmp_path / "truth.csv").write_text(f'path,text\na.wav,"{wanted}"\na.wav,x\nb.wav,never\n')
    out = tmp_path / "out.csv"
    command = [f"--checkpoint={folder}", f"--output={out}", str(tmp_path)]
    scored = [f"--truth={tmp_path / 'truth.csv'}", f"--metrics={tmp_path / 'm.json'}"]
    caption_verb.main([*command, *scored])
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["a.wav", "b.wav", "c.wav"]
    assert rows[0]["text"] == wanted and not (tmp_path / "out.csv.parts").exists()
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["exact"] == 0.5 and found["clips"] == 2
    assert "3 captions; 0 of 3 skipped" in capsys.readouterr().out
    caption_verb.main([*command[:2], scored[0]])  # the files of the truth
    with open(out, newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["a.wav", "b.wav"]
    with pytest.raises(SystemExit):
        caption_verb.main(command[:2])
    assert "PATH: which files?" in capsys.readouterr().err
    (tmp_path / "truth.csv").write_text("path,start,end,text\na.wav,0,,x\na.wav,0,0.5,y\n")
    with pytest.raises(ValueError, match=r"line 3: got end 0.5, wanted whole files"):
        caption_verb.main([*command, scored[0]])
    (tmp_path / "truth.csv").write_text("path,text\nd.wav,x\n")
    with pytest.raises(ValueError, match="names none of the 3 files"):
        caption_verb.main([*command, scored[0]])
    for wrong, said in ((["--metrics=x"], "without --truth"), (["--output=a.txt"], "ends in .csv")):
        with pytest.raises(SystemExit):
            caption_verb.main([*command, *wrong])
        assert said in capsys.readouterr().err
    other = exported.write(tmp_path / "other", (e := encoders.encoder()).params, e.config)
    with pytest.raises(ValueError, match="wanted a model of captions .*got an encoder of sound"):
        caption_verb.main([f"--checkpoint={other}", *command[1:]])


def test_a_captioner_is_asked_by_the_benchmark(folder):
    heard = Listener(load(folder))
    assert heard.lacks(("captions",)) == "" and heard.lacks(("clips", "moments")) == ""
    assert "no captions" in Listener(encoders.encoder()).lacks(("captions",))
    source = Synthetic(size=12, seconds=0.5)
    protocol = captioning.Captioning()
    found = protocol.score(protocol.case(source, heard, 0), 0)
    assert found.chance == pytest.approx(1 / 12) and found.count == 12 and found.value <= 1


def test_what_is_compared_with_is_read_strictly_and_never_replaced(folder, tmp_path, caplog):
    rng = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", rng.normal(0, 0.1, 8_000), 16_000)
    out, truth = tmp_path / "out.csv", tmp_path / "truth.jsonl"
    command = [f"--checkpoint={folder}", f"--output={out}", *map(str, tmp_path.glob("[ab].wav"))]
    model = load(folder)
    sound, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    # As tables of clips have it: several captions of a clip as a list.
    rows = [
        dict(path="a.wav", text=["x y", model.caption(sound, rate)]),
        dict(path="c.wav", text="x"),
    ]
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = [f"--truth={truth}", f"--metrics={tmp_path / 'm.json'}"]
    caption_verb.main([*command, *scored])
    assert json.loads((tmp_path / "m.json").read_text())["exact"] == 1
    assert "1 of 2 files are not in it, and do not count" in caplog.text
    assert "1 of its 2 files were not given" in caplog.text
    for text in (None, "  ", [], ["x", ""]):
        truth.write_text(json.dumps(dict(path="a.wav", text=text)) + "\n")
        with pytest.raises(ValueError, match="truth.jsonl, line 1: text: got .*wanted a caption"):
            caption_verb.main([*command, *scored])
    for path in (None, "", 3):
        truth.write_text(json.dumps(dict(path=path, text="x")) + "\n")
        with pytest.raises(ValueError, match="truth.jsonl, line 1: path: got .*wanted a file"):
            caption_verb.main([*command, *scored])
    table = tmp_path / "table.csv"
    table.write_text("path,text\na.wav,x\n")
    for more in (
        [f"--output={table}", f"--truth={table}"],
        [f"--truth={table}", f"--metrics={table}"],
        [f"--truth={table}", f"--metrics={out}"],
    ):
        with pytest.raises(
            ValueError, match=r"\.csv: the command has this file for something else"
        ):
            caption_verb.main([*command, *more])
    assert table.read_text() == "path,text\na.wav,x\n"
