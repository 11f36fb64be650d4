"""Our contrastive losses and retrieval scores against those of the published code."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

from ssl_audio import losses
from ssl_audio.losses import cosine_distance, info_nce, joint_nce, unit, weighted_mean

pytestmark = pytest.mark.parity
FILES = golden_files("audio_text_losses*.npz")


def load(path):
    return {k: jnp.asarray(v) for k, v in np.load(path, allow_pickle=False).items()}


def symmetric(a, t, scale):
    return (info_nce(scale * a @ t.T).mean() + info_nce(scale * t @ a.T).mean()) / 2


def close(got, want):
    assert float(got) == pytest.approx(float(want), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("path", FILES)
def test_clap(path):
    g = load(path)
    near, far = g["clap_scale_a"], g["clap_scale_t"]
    close(symmetric(g["clap_a"], g["clap_t"], near), g["clap_loss"])
    mlp = symmetric(g["clap_a"], g["clap_t_mlp"], near) + symmetric(
        g["clap_a_mlp"], g["clap_t"], far
    )
    close(mlp / 2, g["clap_mlp_loss"])


@pytest.mark.parametrize("path", FILES)
def test_slap(path):
    g = load(path)

    def distance(q, z):
        return cosine_distance(g[f"slap_q_{q}"], g[f"slap_zbar_{z}"]).mean()

    for share in (0.5, 0.3, 0.8):
        inter = distance("a", "t") + distance("t", "a")
        intra = distance("a", "a") + distance("t", "t")
        close(share * inter + (1 - share) * intra, g[f"slap_paper_total_lam{share}"])


@pytest.mark.parametrize("path", FILES)
def test_reversals(path):
    g = load(path)
    x = jnp.concatenate([g["tact_x_fwd"], g["tact_x_rev"]])
    text = jnp.concatenate([g["tact_t_fwd"], g["tact_t_rev"]])
    half = len(x) // 2
    for case in ("unit", "a", "b"):
        same, cross, beta = (float(v) for v in g[f"tact_{case}_params_same_cross_beta"])
        weight = jnp.repeat(jnp.array([1.0, beta]), half)
        scores = text @ x.T + losses.reversal_bias(half, same, cross)
        both = [weighted_mean(info_nce(s), weight) for s in (scores, scores.T)]
        for got, name in zip((*both, sum(both)), ("t2x", "x2t", "sum"), strict=True):
            close(got, g[f"tact_{case}_{name}"])


@pytest.mark.parametrize("path", FILES)
def test_vatt(path):
    g = {k: unit(v) if k.startswith("vatt_") and v.ndim > 1 else v for k, v in load(path).items()}
    close(joint_nce(g["vatt_v_toaud"], g["vatt_a_tovid"][:, None], 0.07).mean(), g["vatt_nce_va"])
    video, text, mask = g["vatt_v_totxt"], g["vatt_t_tovid"], g["vatt_text_mask"]
    close(joint_nce(video, text, 0.07).mean(), g["vatt_milnce_vt"])
    masked = weighted_mean(joint_nce(video, text, 0.07, mask), mask)
    close(masked, g["vatt_milnce_vt_masked"])
