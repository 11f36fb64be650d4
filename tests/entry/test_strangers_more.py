"""Folders of strangers, what nests: JSON in JSON, deep brackets, endless names; a folder of transformers."""

import json
import sys

import encoders
import pytest

import ssl_audio
from ssl_audio.convert import references
from ssl_audio.data import tfds
from ssl_audio.storage import exported, written

MODULE = "import pathlib\npathlib.Path({mark!r}).write_text('imported')\n"
DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
INNER = {"features": {"x": {"pythonClassName": "marker.Boom"}}}


@pytest.mark.parametrize(
    "features",
    [
        {
            "type": DICT,
            "proto_cls": "tensorflow_datasets.FeaturesDict",
            "content": json.dumps(INNER),
        },
        {
            "pythonClassName": DICT,
            "jsonFeature": {
                "json": "\n " + json.dumps({"x": {"type": "marker.Boom", "content": {}}})
            },
        },
        {"pythonClassName": DICT, "jsonFeature": {"json": json.dumps({"a": json.dumps(INNER)})}},
    ],
    ids=["legacy", "json feature", "twice"],
)
def test_a_tfds_folder_hides_no_class_in_a_text(tmp_path, monkeypatch, features):
    mark = tmp_path / "mark"
    (tmp_path / "marker.py").write_text(MODULE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(features))
    (tmp_path / "dataset_info.json").write_text('{"description": "{not JSON"}')
    with pytest.raises(ValueError, match=r"features\.json: .*: got 'marker\.Boom', wanted a class"):
        len(tfds.Tfds(str(tmp_path)))
    assert not mark.exists() and "marker" not in sys.modules


@pytest.fixture
def folder(tmp_path):
    model = encoders.encoder()
    exported.write(tmp_path / "model", model.params, json.loads(json.dumps(model.config)))
    return tmp_path / "model"


@pytest.mark.parametrize("depth", [300, 900, 100_000])
def test_deep_brackets_are_one_short_line(folder, depth):
    deep = '{"objective":' + '{"encoder":' * depth + '{"kind":"marker:Boom"}' + "}" * (depth + 1)
    (folder / written.CONFIG).write_text(deep)
    with pytest.raises(ValueError, match=r"config\.json") as stop:
        ssl_audio.load(folder)
    assert len(str(stop.value)) < 1000


@pytest.mark.parametrize("kind", ["a b" * 10_000, "a" * 30_000, ["marker:Boom"] * 10_000])
def test_an_endless_kind_is_one_short_line(folder, kind):
    (folder / written.CONFIG).write_text(json.dumps({"objective": {"kind": kind}}))
    with pytest.raises(
        (TypeError, ValueError), match=r"config\.json.*objective\.kind: got"
    ) as stop:
        ssl_audio.load(folder)
    assert len(str(stop.value)) < 1000


def test_the_path_to_a_kind_is_text_and_short(folder):
    made = {"objective": {"\x1b[2J" + "k" * 10_000: {"kind": "marker:Boom"}}}
    (folder / written.CONFIG).write_text(json.dumps(made))
    with pytest.raises(ValueError, match="--trust marker") as stop:
        ssl_audio.load(folder)
    assert len(str(stop.value)) < 1000 and "\x1b" not in str(stop.value)


def test_a_folder_of_transformers_names_no_code(tmp_path):
    """Neither the code of attention, which `kernels` would fetch, nor a feature extractor of its own."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_length=32, num_mel_bins=32,
    )  # fmt: skip
    transformers.ASTModel(config).save_pretrained(tmp_path)
    transformers.ASTFeatureExtractor(max_length=32, num_mel_bins=32).save_pretrained(tmp_path)
    named = json.loads((tmp_path / "config.json").read_text())
    named["attn_implementation"] = "stranger/kernel:attend"
    (tmp_path / "config.json").write_text(json.dumps(named))
    _, found = references.load(tmp_path)
    assert found.model.config._attn_implementation == "eager"
    mark = tmp_path / "mark"
    (tmp_path / "own.py").write_text(MODULE.format(mark=str(mark)) + "class Own: pass\n")
    made = json.loads((tmp_path / "preprocessor_config.json").read_text())
    made |= {"feature_extractor_type": "Own", "auto_map": {"AutoFeatureExtractor": "own.Own"}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(made))
    with pytest.raises(ValueError, match="trust_remote_code"):
        references.load(tmp_path)
    assert not mark.exists()
