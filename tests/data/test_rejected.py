"""The clip of a pair that is liked less: out of a table's column, one of several, at the source's rate."""

import numpy as np
import pytest
import soundfile

from ssl_audio import config
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Audio
from ssl_audio.data.rejected import Rejected

RATE = 8000


@pytest.fixture
def source(tmp_path):
    """Return a table of two clips; those that are liked less are louder, one in stereo at another rate."""
    (tmp_path / "made").mkdir()
    for name, level, rate in (("a", 0.1, RATE), ("made/b", 0.3, RATE), ("made/c", 0.6, 2 * RATE)):
        sound = np.full((rate // 10, 2 if name == "made/c" else 1), level)
        soundfile.write(tmp_path / f"{name}.wav", sound, rate)
    (tmp_path / "pairs.csv").write_text(
        "path,text,rejected\na.wav,rain,made/b.wav; made/c.wav\na.wav,rain,\n"
    )
    return config.build(
        dict(kind="source:Manifest", path=str(tmp_path / "pairs.csv"), rate=RATE), "data"
    )


def test_one_of_several_is_drawn_and_cut_as_the_clip_is(source):
    entry, rng = Rejected(Audio(1000, crop="first")), np.random.default_rng(0)
    found = [entry.draw({**source[0], "more": None}, rng) for _ in range(20)]
    assert {round(float(one["audio_rejected"][400]), 1) for one in found} == {0.3, 0.6}
    assert {name: value.shape for name, value in found[0].items()} == {
        name: shape for name, (shape, _) in entry.spec().items()
    }
    assert {int(one["length_rejected"]) for one in found} == {800}  # at the source's rate


def test_a_clip_without_one_is_skipped_as_a_broken_one(source):
    with pytest.raises(DecodeError, match="nothing in column 'rejected'"):
        Rejected(Audio(1000)).draw(source[1], np.random.default_rng(0))
