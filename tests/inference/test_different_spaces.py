"""Vectors of towers that were not trained to be compared are refused, and not multiplied."""

import dataclasses

import numpy as np
import pytest
from encoders import drawn

from ssl_audio import config, config_files
from ssl_audio.config import build
from ssl_audio.data.text import Text, Words
from ssl_audio.eval import gallery
from ssl_audio.eval.zero_shot import ZeroShot
from ssl_audio.inference import segments
from ssl_audio.inference.audio_text import AudioTextModel


@pytest.fixture(scope="module")
def model():
    """Return VATT: sound meets video in one space, video meets words in another."""
    options = config_files.load("vatt:runlocal")
    for tower in options.objective.towers.values():
        tower.encoder.depth = 1
    options = config.plain(options)
    built = build(options["objective"], "objectives")
    blank = AudioTextModel(built, {}, options).blank()
    return AudioTextModel(built, drawn(built, blank), options)


def test_words_do_not_find_sound_where_they_share_no_space(model):
    apart = r"audio \[64\] and text \[32\] are of different spaces"
    sound = np.random.default_rng(0).normal(0, 0.1, 5120).astype(np.float32)
    heard, said = model.embed_audio(sound, 8000), model.embed_text("seven")
    assert len(heard) == model.width == 64 and len(said) == 32
    assert model.takes == ("audio",) and not segments.of(model).words
    with pytest.raises(ValueError, match=apart):
        model.embed_query(text="seven")
    with pytest.raises(ValueError, match=apart):
        model.classify(sound, ["one", "two"], 8000)
    with pytest.raises(ValueError, match=apart):
        model.check_offers("embed_audio", "embed_text")
    source = build(dict(kind="synthetic", size=4, seconds=0.64, rate=8000), "data")
    with pytest.raises(ValueError, match=apart):
        ZeroShot(source, 5120, Text(Words((), 16), 4)).scores(model)
    model.check_offers("embed_text")
    with pytest.raises(ValueError, match=r"query by video: .*data\.entries\.video is missing"):
        model.embed_query(features={"video": np.zeros((4, 8, 8, 1))})


@dataclasses.dataclass(frozen=True)
class Vectors(gallery.Gallery):
    """A gallery whose vectors are known."""

    widths: tuple[int, ...] = ()

    def vectors(self, objective, params):
        names, _ = dict.fromkeys((self.key, *self.asked)), (objective, params)
        return {n: np.ones((3, w)) for n, w in zip(names, self.widths, strict=True)}, None


class Towers:
    """Towers of two spaces, and no branches."""

    towers = {"audio": None, "text": None}

    def embed(self, name, params, batch):
        del params, batch
        return np.ones((1, 3 if name == "audio" else 2))


def test_the_gallery_refuses_what_it_cannot_compare():
    source = build(dict(kind="synthetic", size=3, seconds=0.1), "data")
    made = Vectors(source, {}, ("text",), relevant="", widths=(3, 2))
    with pytest.raises(ValueError, match=r"text \[2\] and audio \[3\] are of different spaces"):
        made.scores(Towers(), {})
    assert made.scores.__func__(dataclasses.replace(made, widths=(3, 3)), Towers(), {})
    with pytest.raises(ValueError, match=r"text\+audio: vectors of \[2, 3\] numbers"):
        gallery.embed(Towers(), {}, {}, "text+audio")


def test_a_gallery_says_what_is_missing():
    source = build(dict(kind="synthetic", size=1, seconds=0.1), "data")
    with pytest.raises(ValueError, match="no clip of synthetic has anything in the column 'taste'"):
        gallery.Gallery(source, {}, ("text",), relevant="taste").check(Towers(), None)

    class One(Vectors):
        def vectors(self, objective, params):
            return {"audio": np.ones((1, 3)), "text": np.ones((1, 3))}, None

    with pytest.raises(ValueError, match="a gallery of one clip"):
        One(source, {}, ("text",), relevant="").scores(Towers(), {})
    with pytest.raises(ValueError, match="alpha: wanted a model with a branch 'class'"):
        gallery.Gallery(source, {}, ("text",), relevant="", alphas=(0.5,)).check(Towers(), None)
