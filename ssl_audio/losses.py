"""Loss functions: pure, on plain arrays, called by the objectives."""

import jax
import jax.numpy as jnp

from ssl_audio.letters import Array, Float


def patch_nce(
    predicted: Float[Array, "B K G"], target: Float[Array, "B K G"], over: str = "predictions"
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Match masked patches of a clip to their predictions: (loss, accuracy) per clip.

    Plain dot products, no temperature, negatives from the same clip only (SSAST section 3.3). The
    released models were trained with the softmax over the clip's predictions for a fixed target; the paper's
    equation 1 has it over targets for a fixed prediction. `over` is "predictions" or "targets".
    Accuracy: normalise over predictions, then ask which target each prediction belongs to.
    """
    if over not in ("predictions", "targets"):
        raise ValueError(f"softmax over '{over}': wanted 'predictions' or 'targets'.")
    scores = jnp.einsum("big,bjg->bij", target, predicted)  # [B, K targets, K predictions]
    logp = jax.nn.log_softmax(scores, axis=2)
    chosen = logp if over == "predictions" else jax.nn.log_softmax(scores, axis=1)
    loss = -jnp.mean(jnp.diagonal(chosen, axis1=1, axis2=2), axis=1)
    hits = jnp.argmax(logp, axis=1) == jnp.arange(scores.shape[1])[None]
    return loss, jnp.mean(hits.astype(jnp.float32), axis=1)


def patch_mse(
    predicted: Float[Array, "B K G"], target: Float[Array, "B K G"]
) -> Float[Array, " B"]:
    """Mean squared error over the masked patches of each clip (SSAST equation 2)."""
    return jnp.mean((predicted - target) ** 2, axis=(1, 2))


def softmax_cross_entropy(
    logits: Float[Array, "B C"], label: Float[Array, "B C"]
) -> Float[Array, " B"]:
    """Cross-entropy with a distribution over classes; `label` is scaled to sum to 1."""
    share = label / jnp.maximum(jnp.sum(label, -1, keepdims=True), 1e-6)
    return -jnp.sum(share * jax.nn.log_softmax(logits), -1)


def sigmoid_cross_entropy(
    logits: Float[Array, "B C"], label: Float[Array, "B C"]
) -> Float[Array, " B"]:
    """Binary cross-entropy of every class on its own, averaged over classes."""
    return -jnp.mean(
        label * jax.nn.log_sigmoid(logits) + (1 - label) * jax.nn.log_sigmoid(-logits), -1
    )
