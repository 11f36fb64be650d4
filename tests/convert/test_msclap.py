"""Microsoft's CLAP from random arrays under its names: against numpy, used, and back."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

import ssl_audio
from ssl_audio.convert import clap, from_state_dict, msclap
from ssl_audio.frontend.mel import Mel, mel_bands
from ssl_audio.storage import exported

RATE, BINS, WINDOW, OUT = 8000, 32, 256, 6
CHANNELS, EMBEDDING, WIDTH = (2, 3, 4, 4, 5, 6), 7, 8
OPTIONS = dict(
    sample_rate=RATE, hop_size=80, fmax=4000, duration=1, text_config=dict(num_attention_heads=2)
)


def arrays():
    """Return name → array."""
    shapes = {"logit_scale": ()}
    base = "audio_encoder.base."

    def batch_norm(at, width):
        names = ("weight", "bias", "running_mean", "running_var")
        return {f"{at}.{name}": (width,) for name in names}

    shapes |= batch_norm(f"{base}bn0", BINS)
    before = 1
    for number, width in enumerate(CHANNELS, 1):
        at = f"{base}conv_block{number}"
        for conv in (1, 2):
            shapes[f"{at}.conv{conv}.weight"] = (width, before, 3, 3)
            shapes |= batch_norm(f"{at}.bn{conv}", width)
            before = width
    for name, out, into in (("fc1", EMBEDDING, before), ("fc_audioset", 4, EMBEDDING)):
        shapes |= {f"{base}{name}.weight": (out, into), f"{base}{name}.bias": (out,)}
    base = "caption_encoder.base."
    for name, rows in (("word", 12), ("position", 9), ("token_type", 2)):
        shapes[f"{base}embeddings.{name}_embeddings.weight"] = (rows, WIDTH)
    layer = f"{base}encoder.layer.0"
    for at in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        shapes |= {f"{base}{at}.LayerNorm.{name}": (WIDTH,) for name in ("weight", "bias")}
    parts = [f"attention.self.{name}" for name in ("query", "key", "value")]
    linear = {f"{layer}.{name}": (WIDTH, WIDTH) for name in (*parts, "attention.output.dense")}
    linear |= {f"{layer}.intermediate.dense": (16, WIDTH), f"{layer}.output.dense": (WIDTH, 16)}
    linear[f"{base}pooler.dense"] = (WIDTH, WIDTH)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in (("audio_encoder", EMBEDDING), ("caption_encoder", WIDTH)):
        at = f"{name}.projection"
        shapes |= {f"{at}.linear1.weight": (OUT, width), f"{at}.linear2.weight": (OUT, OUT)}
        shapes |= {f"{at}.layer_norm.{part}": (OUT,) for part in ("weight", "bias")}
    rng = np.random.default_rng(0)
    state = {n: rng.uniform(-0.5, 0.7, shape).astype(np.float32) for n, shape in shapes.items()}
    state |= {n: np.abs(v) + 1 for n, v in state.items() if n.endswith("running_var")}
    state["audio_encoder.base.bn0.running_var"] += 400  # decibels
    bank = mel_bands(BINS, WINDOW, RATE, 50.0, 4000.0, "slaney", True).T
    return state | {
        "audio_encoder.base.logmel_extractor.melW": bank,
        "caption_encoder.base.embeddings.position_ids": np.arange(9)[None],
    }


@pytest.fixture(scope="module")
def state():
    return arrays()


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    return dict(
        waveform=rng.normal(0, 0.1, (2, RATE)).astype(np.float32),
        input_ids=rng.integers(0, 12, (3, 6)),
        attention_mask=(np.arange(6)[None] < [[6], [4], [2]]).astype(np.int32),
    )


def project(state, prefix, x):
    """W x + V gelu(W x), normalised, as Microsoft has it."""
    part = {n.removeprefix(f"{prefix}.projection."): v for n, v in state.items()}
    first = x.astype(np.float64) @ part["linear1.weight"].T
    gelu = first * 0.5 * (1 + np.vectorize(math.erf)(first / 2**0.5))
    total = first + gelu @ part["linear2.weight"].T
    centred = total - total.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * part["layer_norm.weight"] + part["layer_norm.bias"]


def test_embeddings_are_those_of_the_towers_projected(state, inputs):
    model = from_state_dict("msclap", state, **OPTIONS)
    got = model.forward(**inputs)
    tagger = from_state_dict(
        "cnn14",
        {
            n.removeprefix("audio_encoder.base."): v
            for n, v in state.items()
            if "audio_encoder.base." in n
        },
        **{k: v for k, v in OPTIONS.items() if k not in ("duration", "text_config")},
    )
    sound = tagger.forward(waveform=inputs["waveform"])["embedding"]
    base = "caption_encoder.base."
    bert = {n.removeprefix(base): v for n, v in state.items() if n.startswith(base)}
    words = from_state_dict("minilm", bert, num_attention_heads=2).forward(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
    )["last_hidden_state"]
    want = {
        "audio": project(state, "audio_encoder", sound),
        "text": project(state, "caption_encoder", words[:, 0]),
    }
    for name, value in want.items():
        assert np.abs(got[f"{name}_embeds"] - value).max() < 1e-4, name
    unit = {n: v / np.linalg.norm(v, axis=1, keepdims=True) for n, v in want.items()}
    scores = np.exp(state["logit_scale"]) * unit["audio"] @ unit["text"].T
    assert np.abs(got["logits_per_audio"] - scores).max() < 1e-4
    # The first word alone counts; padding is not heard.
    changed = inputs["input_ids"].copy()
    changed[2, 2:] = 5
    again = model.forward(**inputs | dict(input_ids=changed))["text_embeds"]
    assert np.abs(again - got["text_embeds"]).max() < 1e-5


def test_loaded_it_embeds_and_comes_back(state, inputs, tmp_path):
    model = from_state_dict("msclap", {f"module.{n}": v for n, v in state.items()}, **OPTIONS)
    back = msclap.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    exported.write(tmp_path, model.params, model.config, unused=model.unused)
    encoder = ssl_audio.load(tmp_path)
    vector = encoder.embed_audio(inputs["waveform"][0], RATE)
    want = model.forward(**inputs)["audio_embeds"][0]
    assert np.abs(vector - want / np.linalg.norm(want)).max() < 1e-4


def test_what_cannot_be_converted_is_refused(state):
    later = {"audio_encoder.base.htsat.bn0.weight": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match="missing keys: audio_model"):
        from_state_dict("msclap", later)
    broken = dict(state)
    broken["surprise"] = broken.pop("caption_encoder.projection.linear2.weight")
    with pytest.raises(
        ValueError, match="missing keys: caption.*linear2.*unexpected keys: surprise"
    ):
        from_state_dict("msclap", broken, **OPTIONS)
    with pytest.raises(ValueError, match="not the mel bank of 32 bands from 50.0 to 14000.0 Hz"):
        from_state_dict("msclap", state)


def layer_norm(x, part, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * part[f"{name}.weight"] + part[f"{name}.bias"]


def gpt2(part, ids, heads):
    """The last hidden states of one text, by GPT-2's formulas."""
    x = part["wte.weight"][ids] + part["wpe.weight"][: len(ids)]
    width = x.shape[-1]
    for i in range(2):
        layer = {n.removeprefix(f"h.{i}."): v for n, v in part.items() if n.startswith(f"h.{i}.")}

        def linear(name, y, layer=layer):
            return y @ layer[f"{name}.weight"] + layer[f"{name}.bias"]

        q, k, v = np.split(linear("attn.c_attn", layer_norm(x, layer, "ln_1")), 3, axis=-1)
        mixed = np.zeros_like(q)
        for h in range(heads):
            cut = slice(h * width // heads, (h + 1) * width // heads)
            for n in range(len(ids)):
                scores = k[: n + 1, cut] @ q[n, cut] / np.sqrt(width / heads)
                odds = np.exp(scores - scores.max())
                mixed[n, cut] = odds / odds.sum() @ v[: n + 1, cut]
        x = x + linear("attn.c_proj", mixed)
        y = linear("mlp.c_fc", layer_norm(x, layer, "ln_2"))
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + linear("mlp.c_proj", y)
    return layer_norm(x, part, "ln_f")


def later(state, path):
    """Return arrays under the names of the model of 2023; HTSAT's from a golden file of CLAP."""
    data = np.load(path, allow_pickle=False)
    sound = {k.removeprefix("param/"): data[k] for k in data.files if k.startswith("param/audio_m")}
    sound = {n: v for n, v in sound.items() if "relative_position_index" not in n}
    sound = {
        n.replace("audio_branch.", "audio_encoder.base.htsat."): v
        for n, v in clap.to_laion(sound).items()
    }
    width = len(sound["audio_encoder.base.htsat.norm.weight"])
    shapes = {"wte.weight": (12, WIDTH), "wpe.weight": (9, WIDTH)}
    for i in range(2):
        for name, out, into in (
            ("attn.c_attn", 3 * WIDTH, WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", 16, WIDTH),
            ("mlp.c_proj", WIDTH, 16),
        ):
            shapes |= {f"h.{i}.{name}.weight": (into, out), f"h.{i}.{name}.bias": (out,)}
        names = [f"h.{i}.ln_{n}.{part}" for n in (1, 2) for part in ("weight", "bias")]
        shapes |= dict.fromkeys(names, (WIDTH,))
    shapes |= dict.fromkeys(("ln_f.weight", "ln_f.bias"), (WIDTH,))
    rng = np.random.default_rng(2)
    text = {n: rng.uniform(-0.5, 0.7, shape).astype(np.float32) for n, shape in shapes.items()}
    kept = {n: v for n, v in state.items() if ".projection." in n or n == "logit_scale"}
    kept["audio_encoder.projection.linear1.weight"] = rng.uniform(-0.5, 0.5, (OUT, width))
    bank = mel_bands(16, WINDOW, 32_000, 50.0, 14_000.0, "slaney", True).T
    return {
        **kept,
        **sound,
        **{f"caption_encoder.base.{n}": v for n, v in text.items()},
        "caption_encoder.base.h.0.attn.bias": np.tri(9)[None, None],
        "audio_encoder.base.htsat.logmel_extractor.melW": bank,
    }


@pytest.mark.parity
@pytest.mark.parametrize("path", golden_files("clap_tiny.npz"))
def test_the_model_of_2023(state, inputs, path):
    data = np.load(path, allow_pickle=False)
    meta = json.loads(bytes(data["meta_json"]))
    state = {n: np.asarray(v, np.float32) for n, v in later(state, path).items()}
    options = dict(
        sample_rate=RATE, hop_size=80, duration=1, tokenizer="tokenizer.json",
        audio_config=meta["config"]["audio"], text_config=dict(n_head=2),
    )  # fmt: skip
    model = from_state_dict("msclap", state, **options)
    got = model.forward(**inputs)

    base = "caption_encoder.base."
    part = {
        n.removeprefix(base): v.astype(np.float64) for n, v in state.items() if n.startswith(base)
    }
    counts = inputs["attention_mask"].sum(1)
    texts = zip(inputs["input_ids"], counts, strict=True)
    last = np.stack([gpt2(part, ids[:n], heads=2)[-1] for ids, n in texts])
    want = project(state, "caption_encoder", last)
    assert np.abs(got["text_embeds"] - want).max() < 1e-4

    # Its mel bank is laid out for another rate than that of the audio.
    mel = Mel(rate=RATE, bins=16, hop=80, window=WINDOW, bank_rate=32_000)
    features = mel(jnp.asarray(inputs["waveform"]))[:, None]
    theirs = {k.removeprefix("param/"): data[k] for k in data.files if k.startswith("param/")}
    whole = from_state_dict("clap", theirs, **meta["config"])
    ids = np.ones((2, 3), np.int32)
    sound = whole.forward(input_features=features, input_ids=ids)["audio/pooler_output"]
    want = project(state, "audio_encoder", sound)
    assert np.abs(got["audio_embeds"] - want).max() < 1e-4

    back = msclap.to_state_dict(model.params, model.config) | model.unused
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    assert model.config["data"]["entries"]["text"]["words"]["end"] == " <|endoftext|>"
