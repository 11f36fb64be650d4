"""Formulas of semi-supervised learning against written-out ones: losses, labels, ramps, averages, mixup."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import golden_files

from ssl_audio import losses
from ssl_audio.objectives import mean_teacher, mixing
from ssl_audio.objectives.deep_co_training import differing
from ssl_audio.objectives.teacher import Ramp
from ssl_audio.train.optim import Optim

pytestmark = pytest.mark.parity
FILES = golden_files("semisup_losses*.npz")


@pytest.fixture(scope="module", params=FILES)
def golden(request):
    """Return the options, the inputs and the outputs of a file."""
    found = np.load(request.param, allow_pickle=False)
    parts = {"in": {}, "out": {}}
    for name in found.files:
        part, _, name_ = name.partition("/")
        if part in parts:
            parts[part][name_] = jnp.asarray(found[name])
    return json.loads(str(found["config_json"])), parts["in"], parts["out"]


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_deep_co_training(golden):
    _, given, want = golden
    divergence = losses.jensen_shannon(given["logits_f_u"], given["logits_g_u"])
    close(jnp.mean(divergence), want["dct_cot_js"])
    # The published code divides the second half of the divergence alone by the number of clips.
    assert abs(float(want["dct_cot_sslh_unnormalised"]) - float(jnp.mean(divergence))) > 1
    pairs = [
        (given[f"logits_{one}_{of}"], given[f"adv_logits_{other}_{of}"])
        for one, other in ("fg", "gf")
        for of in "su"
    ]
    close(differing(pairs), want["dct_diff"])


def test_labels_that_are_guessed(golden):
    options, given, want = golden
    one, two, t = given["aug_probs_1"], given["aug_probs_2"], options["temperature"]
    close((one + two) / 2, want["mixmatch_mean"])
    close(losses.sharpened((one + two) / 2, t), want["mixmatch_sharpened"])
    means = given["labelled_class_mean"], given["unlabelled_class_mean"]
    aligned = losses.aligned(one, *means)
    close(aligned, want["remixmatch_aligned"])
    close(losses.sharpened(aligned, t), want["remixmatch_aligned_sharpened"])


def test_cross_entropies_and_squared_error(golden):
    options, given, want = golden
    each = losses.softmax_cross_entropy(given["logits_f_s"], given["soft_targets"])
    close(each, want["soft_ce_per_item"])
    weak = given["weak_probs"]
    mask = losses.confident(weak, options["tau"])
    close(mask, want["fixmatch_mask"])
    guess = jax.nn.one_hot(jnp.argmax(weak, -1), weak.shape[-1])
    of_all = jnp.mean(mask * losses.softmax_cross_entropy(given["logits_f_u"], guess))
    close(of_all, want["fixmatch_loss"])
    student, teacher = (jax.nn.softmax(given[f"logits_{name}_u"]) for name in "fg")
    close(jnp.mean((student - teacher) ** 2), want["mt_mse"])


def test_ramps_rates_and_averages(golden):
    options, given, want = golden
    steps = given["steps"]
    exponential = Ramp(0.0, 1.0, options["exp_rampup_len"], "exponential")
    close(jax.vmap(exponential)(steps), want["warmup_exp"])
    close(jax.vmap(Ramp(0.0, 1.0, options["linear_len"]))(steps), want["warmup_linear"])
    rate = Optim(lr=1.0, schedule="cosine").rate(options["cosine_len"])
    close(jax.vmap(rate)(steps), want["lr_cosine"])
    decay = jax.vmap(lambda step: mean_teacher.decay(step, options["ema_decay"]))
    close(decay(steps), want["ema_alpha"])


def test_mixup(golden):
    options, given, want = golden
    share = mixing.fold(jnp.asarray(options["mixup_lambda_drawn"]))
    close(mixing.mixed(share, given["mixup_xa"], given["mixup_xb"]), want["mixup_out"])
