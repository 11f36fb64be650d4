"""Synthio's stages, and what is refused before the first of them."""

import numpy as np
import pytest
import soundfile
from reference import ROOT

from ssl_audio.train.stages import plan

CONFIG = ROOT / "configs/synthio.py"


@pytest.fixture
def few(tmp_path):
    """Write a table of one clip."""
    soundfile.write(tmp_path / "0.wav", np.full(80, 0.1), 8000)
    (tmp_path / "few.csv").write_text("path,label\n0.wav,dog\n")
    return tmp_path / "few.csv"


def names(argument):
    """Return what stages write."""
    return [name for name, _ in plan(CONFIG, argument, None)]


def test_stages_follow_the_options(few):
    given = f"data={few},model=RUN"
    whole = ["1_pairs.csv", "2_preferred", "3_captions.csv", "4_sounds.csv", "5_together.csv"]
    assert names(f"{given},filter=CLAP") == whole
    plain = ["1_captions.csv", "2_sounds.csv", "3_together.csv"]
    assert names(f"{given},threshold=0,align=false") == plain


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("each=0", "each: got 0, wanted at least 1"),
        ("rejected=0", "rejected: got 0, wanted at least 1"),
        ("rounds=-1", "rounds: got -1, wanted at least 0"),
        ("threshold=2.0", "threshold: got 2.0, wanted 0 to 1"),
        ("filter=", "filter: wanted, as filter=RUN"),
        ("template=Sound", "a place for the label"),
        ("runlocal", "one stage at a time"),
    ],
)
def test_what_cannot_be_is_refused_before_hours_are_spent(few, more, said):
    given = "" if more.startswith("filter") else "filter=CLAP,"
    with pytest.raises(ValueError, match=said):
        names(f"data={few},model=RUN,{given}{more}")
