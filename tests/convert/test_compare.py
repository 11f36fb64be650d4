"""`convert --check FOLDER`: what it refuses, what it calls wrong, and, where torch is, what it finds."""

import json

import numpy as np
import pytest

from ssl_audio.convert import command, compare


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--from", "ssast"], "required: --checkpoint, --out"),
        (["--check", "X", "--out", "Y"], "--check X: compares a folder by itself, without --out"),
        (["--from", "ssast", "--checkpoint", "x", "--out", "y", "--audio", "z"], "--audio is the"),
    ],
)
def test_arguments_that_do_not_go_together(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_folders_that_cannot_be_compared(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json; wanted the folder of a model"):
        command.main(["--check", str(tmp_path)])
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="beats")))
    with pytest.raises(ValueError, match="model_type 'beats' cannot.*Wanted one of .*wavlm"):
        command.main(["--check", str(tmp_path)])
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="hubert")))
    with pytest.raises(FileNotFoundError, match="no preprocessor_config.json"):
        command.main(["--check", str(tmp_path)])


def row(frames, vector, why=""):
    return compare.Row("short", 1.0, "alone", frames, vector, why)


def test_what_is_wrong():
    for frames, vector, wrong in (
        (1e-6, 1e-6, False), (None, 1e-6, False), (2e-4, 1e-6, True), (1e-6, 2e-4, True),
        (float("nan"), 1e-6, True), (float("inf"), 1e-6, True),
    ):  # fmt: skip
        assert row(frames, vector).wrong is wrong
        assert not row(frames, vector, "defined in another way").wrong
    text = compare.table(
        "x", [row(None, 2e-4), row(float("inf"), 0.1, "windows")], ["lm_head.bias"]
    )
    assert "| short, 1 s | alone | none | 2.0e-04 | **above the limit** |" in text
    assert "| another number | 1.0e-01 | windows |" in text
    assert "left out: lm_head.bias" in text
    x = np.ones((3, 2))
    assert compare.difference(x[:2], x) == float("inf")
    assert compare.difference(x + 0.1, x) == pytest.approx(0.1)


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="no torch: pip install 'ssl_audio[torch]'")
    return pytest.importorskip(
        "transformers", reason="no transformers: pip install 'ssl_audio[torch]'"
    )


@pytest.mark.parity
def test_a_folder_of_transformers(transformers, tmp_path, capsys):
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = transformers.ASTConfig(**sizes, max_length=64, num_mel_bins=32)
    transformers.ASTForAudioClassification(config).save_pretrained(tmp_path)
    extractor = transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    extractor.save_pretrained(tmp_path)
    command.main(["--check", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.count("same definition") == 4 and "above the limit" not in said

    # Another one than was saved is told, with exit code 1.
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(std=1.0)))
    from ssl_audio.convert import references

    class Other(references.Ast):
        def run(self, clips):
            self.extractor.std = 4.5
            return super().run(clips)

    kinds = dict(references.KINDS)
    kinds["audio-spectrogram-transformer"] = ("hf_ast", Other, "ASTModel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "KINDS", kinds)
        with pytest.raises(SystemExit) as stop:
            command.main(["--check", str(tmp_path)])
    assert stop.value.code == 1
    assert "above the limit" in capsys.readouterr().out
