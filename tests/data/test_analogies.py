"""Prompts of tags and examples, their answers, and captions joined from columns."""

import json

import numpy as np
import pytest

from ssl_audio.data.analogies import Analogies, Example, joined, write
from ssl_audio.data.captions import Metadata

EXAMPLES = [Example({"genre": [f"g{i}"], "mood": ["calm"]}, f"Piece {i}.") for i in range(8)]
TAGS = {"genre": ["hip_hop", "jazz"], "mood": []}


def test_a_prompt_has_its_examples_and_depends_on_the_seed_and_the_clip():
    made = Analogies(EXAMPLES, shots=3)
    prompt = made.prompt(TAGS, "a")
    assert prompt == Analogies(EXAMPLES, shots=3).prompt(TAGS, "a")
    assert prompt.count("Description: Piece") == 3 and prompt.count("Tags: ") == 4
    assert prompt.endswith("Tags: genre: hip hop, jazz\nDescription:")
    assert len({Analogies(EXAMPLES, shots=3, seed=s).prompt(TAGS, "a") for s in range(9)}) > 5
    assert len({made.prompt(TAGS, name) for name in "abcdefghi"}) > 5
    plain = Analogies(shots=0).prompt(TAGS)
    assert "Piece" not in plain and plain.count("\n") == 3
    with pytest.raises(ValueError, match="wanted 0 to 8"):
        Analogies(EXAMPLES, shots=9)
    with pytest.raises(ValueError, match="no tags"):
        made.prompt({"genre": []}, "a")


def test_the_first_line_of_the_answer_counts():
    made = Analogies(EXAMPLES, shots=1)
    asked = []

    def echo(prompt):
        asked.append(prompt)
        return f"{prompt} A  slow song.\n\nTags: genre: rock\nDescription: another"

    assert made.describe(TAGS, echo, "a") == "A slow song." and asked == [made.prompt(TAGS, "a")]
    assert made.describe(TAGS, lambda _: "Description: Loud.") == "Loud."
    for answer in ("", "\n \n", "Tags: genre: rock"):
        with pytest.raises(ValueError, match="nothing was written"):
            made.describe(TAGS, lambda _, a=answer: a)
    with pytest.raises(ValueError, match="got NoneType back"):
        made.describe(TAGS, lambda _: None)


def test_a_manifest_is_written_again_with_texts(tmp_path):
    table, out = tmp_path / "clips.csv", tmp_path / "texts.jsonl"
    table.write_text("path,genre,mood\na.wav,rock;blues,calm\nb.wav,,sad\n")
    assert write(str(table), str(out), ("genre", "mood"), Analogies(shots=0)) == 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0] == dict(
        path="a.wav", genre="rock;blues", mood="calm", text="genre: rock, blues; mood: calm"
    )
    assert rows[1]["text"] == "mood: sad"
    write(str(table), str(out), ("mood",), Analogies(shots=0), lambda prompt: prompt[-18:-13])
    assert len(out.read_text().splitlines()) == 2
    table.write_text("path,genre\na.wav,\n")
    with pytest.raises(ValueError, match="clip 'a.wav': no tags"):
        write(str(table), str(out), ("genre",), Analogies(shots=0))
    assert joined({"a": "x_y", "b": [" "]}) == "a: x y"


def test_columns_become_a_caption():
    rng = np.random.default_rng(0)
    columns = {"title": "Blue  Moon", "artist": "", "genre": ["jazz", "vocal"]}
    example = {"id": "a", "columns": columns, "names": ("slow_song",)}
    said = Metadata(("title", "artist", "genre", "label"))(example, rng)
    assert said == "Blue Moon, jazz, vocal, slow song"
    form = Metadata(("title", "genre"), form="{column}: {value}", between="; ")
    assert form(example, rng) == "title: Blue Moon; genre: jazz, vocal"
    with pytest.raises(ValueError, match="clip a: nothing in artist; .* title, artist, genre"):
        Metadata(("artist",))(example, rng)
    with pytest.raises(ValueError, match="a form with"):
        Metadata(("title",), form="x")
