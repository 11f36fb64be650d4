"""A tokenizer's file goes with the model that was converted with it, wherever both go."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

import ssl_audio
from ssl_audio.convert import command, export

WIDTH, WORDS = 8, 6


@pytest.fixture
def folder(tmp_path):
    """Write a T5 with a tokenizer, as transformers lays it out."""
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'ssl_audio[text]'")
    rng = np.random.default_rng(0)
    block = "encoder.block.0.layer"
    shapes = {"shared.weight": (WORDS, WIDTH), "encoder.final_layer_norm.weight": (WIDTH,)}
    shapes |= {f"{block}.0.SelfAttention.{n}.weight": (WIDTH, WIDTH) for n in "qkvo"}
    shapes |= {f"{block}.{i}.layer_norm.weight": (WIDTH,) for i in (0, 1)}
    shapes |= {
        f"{block}.0.SelfAttention.relative_attention_bias.weight": (4, 2),
        f"{block}.1.DenseReluDense.wi.weight": (12, WIDTH),
        f"{block}.1.DenseReluDense.wo.weight": (WIDTH, 12),
    }
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    made = tmp_path / "there"
    made.mkdir()
    safetensors.numpy.save_file(state, made / "model.safetensors")
    (made / "config.json").write_text(json.dumps(dict(d_kv=4, num_heads=2)))
    names = ("<pad>", "</s>", "<unk>", "rain", "dog", "a")
    model = tokenizers.models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<unk>")
    words = tokenizers.Tokenizer(model)
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.save(str(made / "tokenizer.json"))
    return made


def test_converted_and_exported_folders_have_their_tokenizer(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command.main("--from t5 --checkpoint there --out t5".split())
    shutil.rmtree(folder)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    found = ssl_audio.load(tmp_path / "t5").embed_text(["rain", "a dog", "a cow"])
    assert found.shape[0] == 3 and np.isfinite(found).all() and not np.allclose(found[0], found[1])
    export.main(["--checkpoint", str(tmp_path / "t5"), "--out", str(tmp_path / "t5b")])
    shutil.rmtree(tmp_path / "t5")
    again = ssl_audio.load(tmp_path / "t5b").embed_text(["rain", "a dog", "a cow"])
    np.testing.assert_array_equal(again, found)
