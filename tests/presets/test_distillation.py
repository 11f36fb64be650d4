"""Configs of distillation: sources and teachers by domain, teachers by the names of their folders."""

import encoders
import pytest

from ssl_audio import config_files
from ssl_audio.storage.exported import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = encoders.encoder(patch=(32, 8))
    return write(tmp_path_factory.mktemp("models") / "teacher", made.params, made.config)


def test_sources_and_teachers_have_their_domains(folder, tmp_path):
    places = {name: tmp_path / name for name in "abcd"}
    for place in places.values():
        place.mkdir()
    given = f"data={places['a']},speech_data={places['b']},music_data={places['d']}+{places['c']}"
    with pytest.raises(ValueError, match="pairs=4: the student has 4 layers, the teacher 2"):
        config_files.load(f"usad:laptop,{given},speech={folder}")
    made = config_files.load(f"distill:laptop,pairs=2,teacher={folder}+{folder}")
    assert sorted(made.objective.teachers) == ["teacher", "teacher_1"]
    assert made.objective.pairs["teacher_1"] == ((2, 0), (5, 1))
    made = config_files.load(f"usad:laptop,{given},matched=10")
    assert made.objective.matched == 10.0 and made.objective.tap
    assert made.data.entries.domain.sources.to_dict() == {"b": 0, "d": 2, "c": 2}
    assert sorted(made.data.sources) == ["a", "b", "c", "d"]
    assert "domain" not in config_files.load("usad:laptop").data.entries
