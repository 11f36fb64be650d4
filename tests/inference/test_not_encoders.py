"""Converted models that are no encoders: of codes, of latents, of mixtures; what `load` and `predict` say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssl_audio
from ssl_audio import config
from ssl_audio.convert import dit, musicgen, uss
from ssl_audio.inference.diffusion import DiffusionModel
from ssl_audio.inference.generator import Generator
from ssl_audio.inference.model import Model
from ssl_audio.inference.separator import Separator
from ssl_audio.objectives.noise import guided
from ssl_audio.storage import exported

LM = dict(
    kind="token_lm",
    model=dict(kind="codes_lm", books=2, codes=8, width=16, depth=1, heads=2, hidden=16),
    pattern=dict(kind="patterns:Delay", books=2),
)
DIT = dict(kind="diffusion", model=dict(kind="dit", width=64, depth=1, heads=2, given=32))
UNET = dict(
    kind="separation",
    spectrum=dict(kind="spectrum", rate=4000, size=64, hop=16),
    model=dict(kind="resunet", maps=3, channels=(4, 4), norm=dict(kind="norms:BatchNorm")),
)
CASES = {
    "lm": (
        musicgen, LM, dict(num_attention_heads=2),
        dict(codes=np.zeros((3, 2), np.int32), condition=np.ones((4, 16), "f4"),
             condition_length=np.int32(4)),
    ),
    "dit": (
        dit, DIT, dict(num_heads=2),
        dict(latents=np.ones((6, 4), "f4"), condition=np.ones((5, 16), "f4"), globally=np.ones(8, "f4")),
    ),
    "uss": (
        uss, UNET, dict(hop=16, sample_rate=4000),
        dict(audio=np.ones(512, "f4"), condition=np.ones(6, "f4")),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def folder(request, tmp_path_factory):
    """Return a case's name, its folder as `convert` writes it, and an example."""
    family, options, given, example = CASES[request.param]
    objective = config.build(options, "objectives")
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], example)
    shapes, _ = jax.eval_shape(objective.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.uniform(0.1, 0.3, x.shape).astype(x.dtype), shapes)
    state = family.to_state_dict(params, dict(objective=options))
    made = family.from_state_dict(state, **given)
    path = tmp_path_factory.mktemp(request.param) / "model"
    exported.write(path, made.params, made.config, unused=made.unused)
    return request.param, path, example


def test_a_converted_model_loads_and_predicts_and_its_parameters_are_checked(folder, caplog):
    name, path, example = folder
    model = ssl_audio.load(path)
    own = {"uss": Separator, "lm": Generator, "dit": DiffusionModel}
    assert type(model) is own.get(name, Model) and not caplog.records
    if name == "lm":
        assert model.predict("logits", **example).shape == (4, 2, 8)
    elif name == "dit":
        asked = example | dict(time=np.float32(0.5))
        plain = model.predict("velocity", **asked)
        assert plain.shape == (6, 4)
        once = model.predict("velocity", **asked, guidance=np.float32(1))
        np.testing.assert_allclose(once, plain, rtol=1e-4, atol=1e-5)
        more = asked | dict(guidance=np.float32(3))
        free = model.predict("velocity", **asked | dict(condition=0 * example["condition"]))

        def wanted(rescale):
            return guided(jnp.asarray(plain)[None], jnp.asarray(free)[None], 3.0, rescale)[0]

        np.testing.assert_allclose(
            model.predict("velocity", **more), wanted(0.0), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            model.predict("velocity", **more, rescale=np.float32(0.7)),
            wanted(0.7), rtol=1e-3, atol=1e-3,
        )  # fmt: skip
    else:
        assert model.rate == 4000  # the mixture's, to which a waveform is resampled
        sound = model.predict("separate", example["audio"], 4000, condition=example["condition"])
        assert sound.shape == (512,) and np.isfinite(sound).all()
        with pytest.raises(ValueError, match=r"predict: 'separate': .* condition \(3,\)"):
            model.predict("separate", example["audio"], 4000, condition=np.ones(3, "f4"))
    params = jax.tree.map(lambda x: x[:-1] if x.ndim else x, model.params)
    exported.write(path.parent / "cut", params, model.config)
    with pytest.raises(ValueError, match="cut: .*shape"):
        ssl_audio.load(path.parent / "cut")
