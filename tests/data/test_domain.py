"""The entry `domain`: the number of a clip's source, or unknown."""

import numpy as np
import pytest

from ssl_audio.data.entries import Audio, Domain, SourceNumber
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.synthetic import Synthetic


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
