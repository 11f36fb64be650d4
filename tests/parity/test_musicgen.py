"""The language model of MusicGen and AudioGen against transformers; with a memory as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import load
from reference import golden_files

from ssl_audio import config
from ssl_audio.convert import from_state_dict, musicgen

pytestmark = pytest.mark.parity
FILES = golden_files("musicgen_lm*.npz")


@pytest.mark.parametrize("path", FILES)
def test_logits_and_delay_masks(path):
    golden = load(path)
    model = from_state_dict("musicgen", golden.state, **golden.options)
    worst = golden.differences(model.forward(**golden.inputs))
    for name, value in worst.items():
        assert value <= (0 if name.startswith("delay") else 1e-4), (name, value)
    golden.check_same_bits(musicgen.to_state_dict(model.params, model.config) | model.unused)


@pytest.mark.parametrize("path", FILES)
def test_columns_one_by_one_give_what_all_at_once_do(path):
    golden = load(path)
    model = from_state_dict("musicgen", golden.state, **golden.options)
    lm = config.build(model.config["objective"], "objectives").model
    ids, weights = (
        golden.inputs["input_ids_BKxS"],
        {"params": jax.tree.map(jnp.asarray, model.params["model"])},
    )
    codes = jnp.moveaxis(ids.reshape(-1, lm.books, ids.shape[-1]), 1, 2)
    given = (
        jnp.asarray(golden.inputs["encoder_hidden_states"]),
        jnp.asarray(golden.inputs["encoder_attention_mask"] > 0),
    )
    whole = jnp.moveaxis(golden.outputs["logits"], 1, 2)
    begun = 3
    with jax.default_matmul_precision("highest"):
        found, memory = lm.apply(weights, codes[:, :begun], *given, length=codes.shape[1])
        compiled = []

        @jax.jit
        def step(codes, memory):
            compiled.append(codes.shape)
            return lm.apply(weights, codes, memory=memory)

        parts = [found]
        for i in range(begun, codes.shape[1]):
            found, memory = step(codes[:, i : i + 1], memory)
            parts.append(found)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-4)
    assert len(compiled) == 1 and int(memory.length) == codes.shape[1]


def test_names_of_audiocraft():
    golden = load(FILES[0].values[0])
    state, fused = {}, {}
    names = {
        "self_attn_layer_norm": "norm1",
        "encoder_attn_layer_norm": "norm_cross",
        "final_layer_norm": "norm2",
        "fc1": "linear1",
        "fc2": "linear2",
        "encoder_attn": "cross_attention",
    }
    for name, value in golden.state.items():
        new = name.removeprefix("model.decoder.")
        new = new.replace("embed_tokens", "emb").replace("lm_heads", "linears")
        if new.startswith("layer_norm"):
            new = f"out_norm.{new.rpartition('.')[2]}"
        if new.startswith("layers."):
            new = ".".join(names.get(part, part) for part in f"transformer.{new}".split("."))
        if "_proj.weight" in new and "out_proj" not in new:
            at, part, _ = new.rsplit(".", 2)
            fused.setdefault(f"{at}.in_proj_weight", {})[part[0]] = value
            continue
        state[new] = value
    state |= {n: np.concatenate([parts[k] for k in "qkv"]) for n, parts in fused.items()}
    projection = "condition_provider.conditioners.description.output_proj"
    rng = np.random.default_rng(0)
    width = golden.options["hidden_size"]
    state[f"{projection}.weight"] = rng.normal(size=(width, 9)).astype(np.float32)
    state[f"{projection}.bias"] = rng.normal(size=width).astype(np.float32)
    model = from_state_dict("musicgen", state, **golden.options)
    plain = from_state_dict("musicgen", golden.state, **golden.options)
    layers = jax.tree.map(
        np.array_equal, model.params["model"]["layers"], plain.params["model"]["layers"]
    )
    assert all(jax.tree.leaves(layers))
    back = musicgen.to_state_dict(model.params, model.config)
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], value) for name, value in state.items())
    given = dict(golden.inputs, encoder_hidden_states=rng.normal(size=(2, 7, 9)).astype(np.float32))
    found = model.forward(**given)
    # Without a condition, its linear map and the condition itself change nothing.
    near = np.abs(found["logits_null_condition"] - golden.outputs["logits_null_condition"]).max()
    assert near < 1e-4 and np.abs(found["logits"] - golden.outputs["logits"]).max() > 1e-2
