"""A folder exported with --as loads in transformers, and gives what ours gives, from the waveform on."""

import json

import jax
import numpy as np
import pytest
from convert.test_from_waveform import FAMILIES, golden, off, sound

import ssl_audio
from ssl_audio.convert import export, from_state_dict
from ssl_audio.storage import exported

SHARED = [
    "ast",
    "clap_fused",
    "clap_unfused",
    "hubert_layer",
    "wav2vec2_group",
    "wavlm_group",
    "data2vec",
]


def shared(folder, name, *, classes=0, criterion="softmax"):
    """Convert a golden file, make it a classifier where asked, export it; return the model and the folder."""
    state, options = golden(name)
    if classes:
        rng, width = np.random.default_rng(0), options["hidden_size"]
        state = {f"audio_spectrogram_transformer.{k}": v for k, v in state.items()}
        state |= {"classifier.layernorm.weight": np.ones(width, np.float32)}
        state |= {"classifier.layernorm.bias": np.zeros(width, np.float32)}
        for part, shape in (("weight", (classes, width)), ("bias", (classes,))):
            state[f"classifier.dense.{part}"] = rng.normal(0, 1, shape).astype(np.float32)
        kinds = {"softmax": "single_label_classification", "sigmoid": "multi_label_classification"}
        options |= dict(num_labels=classes, problem_type=kinds[criterion])
        options["id2label"] = {str(i): f"class {i}" for i in range(classes)}
    family = FAMILIES[name]
    model = from_state_dict(family, state, **options)
    exported.write(folder / "ours", model.params, model.config, unused=model.unused)
    arguments = ["--to", "hub", "--as", family, "--out", str(folder / "out")]
    export.main(["--checkpoint", str(folder / "ours"), *arguments])
    return ssl_audio.load(folder / "out"), folder / "out", family


@pytest.mark.parametrize("name", ["ast", "clap_unfused", "wav2vec2_group"])
def test_what_is_written_for_transformers_is_read_back(tmp_path, name):
    """`export` compares by itself; here: the files, and that the folder is ours as before."""
    _, out, family = shared(tmp_path, name)
    config = json.loads((out / family / "config.json").read_text())
    assert config["model_type"] == golden(name)[1]["model_type"]
    wanted = {k: v for k, v in golden(name)[1]["preprocessor"].items() if k != "nb_max_samples"}
    heard = json.loads((out / family / "preprocessor_config.json").read_text())
    assert {k: heard.get(k, v) for k, v in wanted.items()} == wanted
    card = (out / "README.md").read_text()
    assert f'.from_pretrained("OWNER/NAME", subfolder="{family}")' in card


def test_what_transformers_computes_otherwise_is_refused(tmp_path):
    state, options = golden("ast")
    model = from_state_dict("hf_ast", state, **options)

    def refused(match, **changes):
        config = json.loads(json.dumps(model.config))
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = config["objective"]
            for parent in parents:
                place = place[parent]
            place[last] = value
        exported.write(tmp_path / "ours", model.params, config)
        arguments = ["--to", "hub", "--as", "hf_ast", "--out", str(tmp_path / "out")]
        with pytest.raises(ValueError, match=match):
            export.main(["--checkpoint", str(tmp_path / "ours"), *arguments])

    refused("ASTFeatureExtractor hears otherwise: low is 50.0, wanted 20.0", frontend__low=50.0)
    refused("computes something else: vectors of noise differ", encoder__block__norm__eps=0.1)


def test_names_of_classes_come_and_go(tmp_path):
    _, out, _ = shared(tmp_path, "ast", classes=3)
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["entries"]["label"]["names"] == ["class 0", "class 1", "class 2"]
    theirs = json.loads((out / "hf_ast/config.json").read_text())
    assert theirs["id2label"] == {"0": "class 0", "1": "class 1", "2": "class 2"}
    assert theirs["label2id"]["class 2"] == 2
    assert theirs["problem_type"] == "single_label_classification"


@pytest.mark.parity
@pytest.mark.parametrize("name", SHARED)
def test_auto_model(tmp_path, name):
    transformers = pytest.importorskip("transformers", reason="the extra `torch` is not installed")
    torch = pytest.importorskip("torch")
    ours, out, family = shared(tmp_path, name)
    theirs, said = transformers.AutoModel.from_pretrained(
        out, subfolder=family, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(said[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
    extractor = transformers.AutoFeatureExtractor.from_pretrained(out, subfolder=family)
    rate = extractor.sampling_rate
    clip = sound(rate, 1.0)
    inputs = extractor(clip, sampling_rate=rate, return_tensors="pt")
    with torch.no_grad(), jax.default_matmul_precision("highest"):
        if name.startswith("clap"):
            inputs["is_longer"] = torch.tensor([[False]])
            found = theirs.get_audio_features(**inputs)
            vector = getattr(found, "pooler_output", found)[0]
            vector = (vector / vector.norm()).numpy()
            got = ours.embed_audio(clip, rate)
        elif name == "ast":
            vector = theirs(**inputs).pooler_output[0].numpy()
            got = ours.embed(clip, rate, pool="special")
        else:
            vector = theirs(**inputs).last_hidden_state[0].mean(0).numpy()
            got = ours.embed(clip, rate)
    print(f"{name}: {off(got, vector):.1e}")
    assert off(got, vector) < 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("criterion", ["softmax", "sigmoid"])
def test_auto_model_for_audio_classification(tmp_path, criterion):
    transformers = pytest.importorskip("transformers", reason="the extra `torch` is not installed")
    torch = pytest.importorskip("torch")
    ours, out, family = shared(tmp_path, "ast", classes=3, criterion=criterion)
    theirs = transformers.AutoModelForAudioClassification.from_pretrained(out / family)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(out / family)
    assert theirs.config.id2label == {0: "class 0", 1: "class 1", 2: "class 2"}
    clip = sound(16_000, 1.0)
    with torch.no_grad():
        inputs = extractor(clip, sampling_rate=16_000, return_tensors="pt")
        wanted = theirs(**inputs).logits[0].numpy()
    got = ours.predict("logits", clip, 16_000)
    assert off(got, wanted) < 1e-5
    pipe = transformers.pipeline("audio-classification", model=str(out / family), top_k=3)
    best = pipe({"raw": clip, "sampling_rate": 16_000})
    assert best[0]["label"] == f"class {int(wanted.argmax())}"
