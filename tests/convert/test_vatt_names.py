"""VATT's checkpoints: names there and back, and what the towers compute, written out by hand."""

import numpy as np
import pytest
from scipy.special import erf

from ssl_audio import convert
from ssl_audio.convert.vatt import VALUE, short_names, to_state_dict

D, H, FF, HEADS, LAYERS, WORDS = 12, 6, 20, 2, 2, 11
OPTIONS = dict(num_heads=HEADS, num_heads_text=HEADS)


def arrays(shared):
    """Return random arrays under the names of a checkpoint; `shared`: of UniversalVATT."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}

    def dense(at, *shape, bias=True):
        shapes[f"{at}/kernel"] = shape
        if bias:
            shapes[f"{at}/bias"] = shape[-1:]

    def norm(at, width=D, batch=False):
        shapes.update({f"{at}/{name}": (width,) for name in ("gamma", "beta")})
        if batch:
            shapes.update({f"{at}/{n}": (width,) for n in ("moving_mean", "moving_variance")})

    def positions(at, **sizes):
        for axis, size in sizes.items():
            shapes[f"{at}/{axis}_position_embeddings/embeddings"] = (size, D)
        norm(f"{at}/layernorm")

    def transformer(at):
        for i in range(LAYERS):
            here = f"{at}/layers/{i}"
            for name in "qkvo":
                dense(f"{here}/mha/{name}", D, D)
            norm(f"{here}/layer_norm")
            norm(f"{here}/feed_forward/layer_norm")
            dense(f"{here}/feed_forward/mlp/wi", D, FF)
            dense(f"{here}/feed_forward/mlp/wo", FF, D)
        norm(f"{at}/final_layer_norm")

    base = "model/layer_with_weights-0/_base_layer"
    if shared:
        at = f"{base}/unified_backbone/unified_transformer"
        for name in ("video", "audio", "text"):
            dense(f"{at}/pre_proj/{name}", H if name == "text" else D, D)
            dense(f"{at}/post_proj/{name}", D, 8)
            shapes[f"{at}/agg_token/{name}"] = (D,)
        dense(f"{at}/raw_to_embeddings/audio", 16, 1, D)
        dense(f"{at}/raw_to_embeddings/video", 2, 4, 4, 3, D)
        shapes[f"{at}/raw_to_embeddings/text/embeddings"] = (WORDS, H)
        positions(f"{at}/pos_embedding_lookup/audio", temporal=5)
        positions(f"{at}/pos_embedding_lookup/text", temporal=4)
        positions(f"{at}/pos_embedding_lookup/video", temporal=2, vertical=3, horizontal=3)
        transformer(f"{at}/tx")
    else:
        for name, kernel in (("aud", (16, 1, D)), ("vid", (2, 4, 4, 3, D))):
            at = f"{base}/{name}_backbone/_base"
            dense(f"{at}/{'wave' if name == 'aud' else 'voxel'}_to_patch", *kernel)
            sizes = (
                dict(temporal=5) if name == "aud" else dict(temporal=2, vertical=3, horizontal=3)
            )
            positions(f"{at}/pos_embedding_lookup", **sizes)
            shapes[f"{at}/agg_token_embd"] = (D,)
            transformer(f"{at}/tx")
        at = f"{base}/txt_backbone"
        shapes[f"{at}/embedding/embeddings"] = (WORDS, H)
        shapes[f"{at}/agg_token_embd"] = (H,)
        dense(f"{at}/pre_proj", H, D, bias=False)
        for i in range(LAYERS):
            here = f"{at}/base_lm/layers/{i}"
            for name in "qkvo":
                dense(f"{here}/self_attention/attention/{name}", D, D, bias=False)
            shapes[f"{here}/self_attention/layer_norm/weight"] = (D,)
            norm(f"{here}/feed_forward/layer_norm")
            dense(f"{here}/feed_forward/mlp/wi", D, FF, bias=False)
            dense(f"{here}/feed_forward/mlp/wo", FF, D, bias=False)
        first = f"{at}/base_lm/layers/0/self_attention/attention/relative_attention_bias"
        shapes[f"{first}/embeddings"] = (32, HEADS)
        shapes[f"{at}/base_lm/final_layer_norm/weight"] = (D,)
    wide = 8 if shared else D
    head = "model/layer_with_weights-0/_head_layer/_bridge_heads/0"
    dense(f"{head}/vid_to_hid", wide, 10, bias=False)
    dense(f"{head}/hid_to_va/dense", 10, 10, bias=False)
    dense(f"{head}/va_to_vat/dense", 10, 6, bias=False)
    for at, width in (("hid_to_va/pre_bn", 10), ("hid_to_va/bn", 10), ("va_to_vat/bn", 6)):
        norm(f"{head}/{at}", width, batch=True)
    dense(f"{head}/aud_to_va", wide, 10)
    dense(f"{head}/txt_to_vat", wide, 6)
    state = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    state |= {n: abs(x) for n, x in state.items() if n.endswith("moving_variance")}
    moments = {f"{n}/.OPTIMIZER_SLOT/optimizer/m": x for n, x in state.items()}
    whole = {f"{name}{VALUE}": x for name, x in (state | moments).items()}
    return whole | {f"save_counter{VALUE}": np.int64(3), f"optimizer/iter{VALUE}": np.int64(7)}


@pytest.mark.parametrize("shared", [False, True])
def test_names_there_and_back(shared):
    given = arrays(shared)
    made = convert.from_state_dict("vatt", given, **OPTIONS)
    back = to_state_dict(made.params, made.config) | dict(made.unused)
    wanted = short_names(given)
    assert back.keys() - {"logit_scale"} == wanted.keys()
    assert all(np.array_equal(back[name], x) for name, x in wanted.items())
    assert np.exp(-back["logit_scale"]) == pytest.approx(0.07)


def test_one_tower_alone():
    some = {n.replace("aud_backbone/", ""): x for n, x in arrays(False).items() if "aud_" in n}
    some = {n: x for n, x in some.items() if "_bridge" not in n}
    made = convert.from_state_dict("vatt", some, **OPTIONS)
    assert list(made.params) == ["audio"] and made.config["objective"]["edges"] == ()
    with pytest.raises(ValueError, match="missing keys"):
        convert.from_state_dict("vatt", {"other/kernel": np.zeros(1)})


def gelu(x):
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def layer_norm(x, gamma, beta=None):
    if beta is None:  # T5's
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gamma
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gamma + beta


def attention(x, kernels, biases, scale, bias=0.0):
    q, k, v = (x @ kernels[n] + biases[n] for n in "qkv")
    out = np.zeros_like(x)
    for h in range(HEADS):
        own = slice(h * D // HEADS, (h + 1) * D // HEADS)
        scores = q[:, own] @ k[:, own].T * scale
        scores = scores + (bias[h] if np.ndim(bias) else 0)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[:, own] = weights / weights.sum(1, keepdims=True) @ v[:, own]
    return out @ kernels["o"] + biases["o"]


def test_what_the_tower_of_sound_computes():
    g = short_names(arrays(False))
    made = convert.from_state_dict("vatt", arrays(False), **OPTIONS)
    wave = np.random.default_rng(1).normal(size=(1, 80)).astype(np.float32)
    found = made.forward(audio=wave)
    x = wave.reshape(5, 16) @ g["aud/wave_to_patch/kernel"][:, 0] + g["aud/wave_to_patch/bias"]
    at = "aud/pos_embedding_lookup"
    place = g[f"{at}/temporal_position_embeddings/embeddings"]
    x = x + layer_norm(place, g[f"{at}/layernorm/gamma"], g[f"{at}/layernorm/beta"])
    x = np.concatenate([g["aud/agg_token_embd"][None], x])
    for i in range(LAYERS):
        p = f"aud/tx/layers/{i}"
        y = layer_norm(x, g[f"{p}/layer_norm/gamma"], g[f"{p}/layer_norm/beta"])
        kernels, biases = ({n: g[f"{p}/mha/{n}/{k}"] for n in "qkvo"} for k in ("kernel", "bias"))
        x = x + attention(y, kernels, biases, (D / HEADS) ** -0.5)
        f = f"{p}/feed_forward"
        y = layer_norm(x, g[f"{f}/layer_norm/gamma"], g[f"{f}/layer_norm/beta"])
        y = gelu(y @ g[f"{f}/mlp/wi/kernel"] + g[f"{f}/mlp/wi/bias"])
        x = x + y @ g[f"{f}/mlp/wo/kernel"] + g[f"{f}/mlp/wo/bias"]
    last = "aud/tx/final_layer_norm"
    pooled = layer_norm(x, g[f"{last}/gamma"], g[f"{last}/beta"])[0]
    assert np.allclose(found["audio_features_pooled"][0], pooled, atol=2e-4)
    expected = pooled @ g["head/aud_to_va/kernel"] + g["head/aud_to_va/bias"]
    assert np.allclose(found["audio_tovid"][0], expected, atol=1e-3)


def test_what_the_tower_of_words_computes():
    g = short_names(arrays(False))
    made = convert.from_state_dict("vatt", arrays(False), **OPTIONS)
    ids = np.array([[3, 7, 2, 0]], np.int32)  # 0 is padding
    found = made.forward(text=ids)
    words = g["txt/embedding/embeddings"][ids[0, :3]]
    x = gelu(np.concatenate([g["txt/agg_token_embd"][None], words]) @ g["txt/pre_proj/kernel"])
    first = "txt/base_lm/layers/0/self_attention/attention/relative_attention_bias/embeddings"
    apart = np.arange(4)[None] - np.arange(4)[:, None]  # keys less queries: below 8, a bucket each
    bias = g[first][np.where(apart > 0, 16, 0) + abs(apart)].transpose(2, 0, 1)
    for i in range(LAYERS):
        p = f"txt/base_lm/layers/{i}"
        y = layer_norm(x, g[f"{p}/self_attention/layer_norm/weight"])
        kernels = {n: g[f"{p}/self_attention/attention/{n}/kernel"] for n in "qkvo"}
        x = x + attention(y, kernels, dict.fromkeys("qkvo", 0.0), 1.0, bias)
        f = f"{p}/feed_forward"
        y = layer_norm(x, g[f"{f}/layer_norm/gamma"], g[f"{f}/layer_norm/beta"])
        x = x + gelu(y @ g[f"{f}/mlp/wi/kernel"]) @ g[f"{f}/mlp/wo/kernel"]
    pooled = layer_norm(x, g["txt/base_lm/final_layer_norm/weight"])[0]
    assert np.allclose(found["text_features_pooled"][0], pooled, atol=2e-4)


def test_the_head_of_video():
    g = short_names(arrays(False))
    made = convert.from_state_dict("vatt", arrays(False), **OPTIONS)
    video = np.random.default_rng(1).normal(size=(1, 4, 12, 12, 3)).astype(np.float32)
    found = made.forward(video=video)

    def normed(x, at):
        x = (x - g[f"{at}/moving_mean"]) / np.sqrt(g[f"{at}/moving_variance"] + 1e-5)
        return x * g[f"{at}/gamma"] + g[f"{at}/beta"]

    x = found["video_features_pooled"] @ g["head/vid_to_hid/kernel"]
    x = np.maximum(normed(x, "head/hid_to_va/pre_bn"), 0) @ g["head/hid_to_va/dense/kernel"]
    fine = normed(x, "head/hid_to_va/bn")
    assert np.allclose(found["video_toaud"], fine, rtol=1e-3, atol=1e-3)
    coarse = normed(np.maximum(fine, 0) @ g["head/va_to_vat/dense/kernel"], "head/va_to_vat/bn")
    assert np.allclose(found["video_totxt"], coarse, rtol=1e-3, atol=2e-3)
