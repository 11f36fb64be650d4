"""Runs of before: their configs become today's, and damage is named."""

import json
import pathlib
import re

import pytest
from published import CONFIGS, GOLDEN

from ssl_audio import config
from ssl_audio.storage import written

OLD = GOLDEN / "version_0_1"  # config.json of a run of each config, written by version 0.1
# What configs say otherwise since then: clips of `runlocal` as long as what is heard of them, a window of
# audio towers that is written out, one clip in the pictures of `runlocal`.
SINCE = re.compile(
    r"(data\.entries\.audio|evals\.test)\.samples |objective\.towers\.audio\.frontend\.window |record\.clips "
)
STEMS = sorted(path.stem for path in OLD.glob("*.json"))


def test_there_is_an_old_run_of_every_config_of_then():
    names = {stem.removesuffix("_runlocal") for stem in STEMS}
    assert len(names) == 17 and names <= {path.stem for path in CONFIGS}


@pytest.mark.golden
@pytest.mark.parametrize("stem", STEMS)
def test_an_old_config_becomes_what_the_config_of_today_gives(stem, tmp_path):
    (tmp_path / "config.json").write_text((OLD / f"{stem}.json").read_text())
    then = config.text(written.read(tmp_path)).splitlines()
    now = (GOLDEN / f"{stem}_config.txt").read_text().splitlines()
    assert [line for line in then if not SINCE.match(line)] == [
        line for line in now if not SINCE.match(line)
    ]


def test_what_is_not_a_kind_stays():
    given = {"kind": "stack", "name": "heads:Classifier", "parts": [{"kind": "heads:Classifier"}]}
    wanted = {
        "kind": "stack",
        "name": "heads:Classifier",
        "parts": [{"kind": "classify:Classifier"}],
    }
    assert written.upgraded(given) == wanted
    assert written.upgraded(wanted) == wanted


@pytest.mark.parametrize("content", ["{", "[]", "", "\x00"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: got .*, wanted the config that a run"):
        written.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no config\.json; wanted the workdir"):
        written.read(pathlib.Path("nowhere"))


def test_every_new_kind_exists():
    for new in written.KINDS.values():
        kind = new if isinstance(new, str) else new["kind"]
        file, _, name = kind.partition(":")
        name = name or file.capitalize()
        places = [p for p in pathlib.Path(written.__file__).parents[1].rglob("*.py")]
        assert any(
            f"class {name}(" in p.read_text() or f"class {name}:" in p.read_text()
            for p in places
            if p.stem == file.rpartition(".")[2]
        ), new
    assert json.dumps(written.KINDS)
