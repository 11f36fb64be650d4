"""The entry `domain`: the number of a clip's source, or unknown."""

import numpy as np
import pytest
from published import CONFIGS, load

from ssl_audio import config
from ssl_audio.data import places
from ssl_audio.data.entries import Audio, Domain, SourceNumber
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.synthetic import Synthetic
from ssl_audio.presets import distillation
from ssl_audio.train.run import Run


def test_a_clip_has_the_domain_of_its_source():
    sources = {name: Synthetic(size=12, seconds=0.1, seed=i) for i, name in enumerate("zac")}
    entries = dict(audio=Audio(800), source=SourceNumber(), domain=Domain({"z": 0, "a": 2}))
    pipeline = Pipeline(sources, batch_size=12, entries=entries, mixup=0.5, threads=0)
    assert pipeline.spec()["domain"] == ((12,), np.dtype(np.int32))
    batch = next(pipeline.batches())
    assert batch["domain"].dtype == np.int32 and len(set(batch["source"])) == 3
    want = {0: 2, 1: -1, 2: 0}  # a, c, z
    assert batch["domain"].tolist() == [want[int(number)] for number in batch["source"]]


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match=r"sources\.a: wanted a number from 0 on, got -1"):
        Domain({"a": -1})


def test_a_number_for_a_source_that_is_not_there_is_refused():
    sources = {"speech": Synthetic(size=12, seconds=0.1)}
    entries = dict(audio=Audio(800), domain=Domain({"speeck": 0}))
    with pytest.raises(
        ValueError, match=r"sources\.speeck: no source has this name.*some of speech"
    ):
        Pipeline(sources, batch_size=12, entries=entries, threads=0)


def test_no_place_is_lost_whose_name_another_one_has(tmp_path):
    folders = [tmp_path / name for name in ("x/a", "y/a_2", "z/a", "w/a")]
    for folder in folders:
        folder.mkdir(parents=True)
    found = places.sources("+".join(map(str, folders)))
    assert [source["root"] for source in found.values()] == [str(folder) for folder in folders]
    assert list(found) == ["a", "a_2", "a_3", "a_4"]
    assert list(distillation.named("+".join(map(str, folders)))) == ["a", "a_2", "a_3", "a_4"]


def test_a_try_of_usad_keeps_synthetic_sounds_of_several_domains():
    (path,) = [path for path in CONFIGS if path.stem == "usad"]
    made = load(path, "runlocal,speech_data=synthetic,sound_data=synthetic")
    assert dict(made.data.entries.domain.sources) == {"synthetic": 0, "synthetic_1": 1}
    config.make(Run, made)
