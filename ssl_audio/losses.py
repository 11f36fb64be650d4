"""Loss functions: pure, on plain arrays, called by the objectives."""

import jax
import jax.numpy as jnp

from ssl_audio.letters import Array, Float, Int


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


def moments(patches: Float[Array, "B N G"]) -> tuple[Float[Array, "B N 1"], Float[Array, "B N 1"]]:
    """Return mean and deviation of each patch, of its unbiased variance, as in Audio-MAE's code."""
    mean = jnp.mean(patches, -1, keepdims=True)
    return mean, jnp.sqrt(jnp.var(patches, -1, keepdims=True, ddof=1) + 1e-6)


def standardised(patches: Float[Array, "B N G"]) -> Float[Array, "B N G"]:
    """Scale each patch to mean 0 and deviation 1 (He et al. 2022, arXiv:2111.06377, section 3)."""
    mean, deviation = moments(patches)
    return (patches - mean) / deviation


def normalised(x: Float[Array, "*B D"], axis: int, eps: float = 1e-5) -> Float[Array, "*B D"]:
    """Subtract the mean along an axis and divide by the deviation."""
    x = x - jnp.mean(x, axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis, keepdims=True) + eps)


def entropy(share: Float[Array, " C"]) -> Float[Array, ""]:
    """Return the entropy of a distribution, nats."""
    return -jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12)))


def latent_nce(
    predicted: Float[Array, "*B D"],
    positive: Float[Array, "*B D"],
    negative: Float[Array, "*B M D"],
    temperature: float = 0.1,
) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
    """Tell the true latent from M false ones by cosine: (loss, accuracy) of each prediction.

    False ones that equal the true one do not count (wav2vec 2.0, arXiv:2006.11477, equation 3).
    """

    def length(x):
        return jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8)

    same = jnp.all(positive[..., None, :] == negative, axis=-1)
    choice = jnp.concatenate([positive[..., None, :], negative], axis=-2)
    scores = jnp.einsum("...d,...md->...m", predicted / length(predicted), choice / length(choice))
    scores = scores / temperature
    masked = jnp.where(same, -jnp.inf, scores[..., 1:])
    logp = jax.nn.log_softmax(jnp.concatenate([scores[..., :1], masked], axis=-1))
    return -logp[..., 0], (jnp.argmax(logp, -1) == 0).astype(jnp.float32)


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


def code_cross_entropy(
    logits: Float[Array, "*B V"], code: Int[Array, "*B"], smoothing: float = 0.0
) -> Float[Array, "*B"]:
    """Cross-entropy with a code's number; that share of the label is spread over all codes."""
    logp = jax.nn.log_softmax(logits)
    right = jnp.take_along_axis(logp, code[..., None], axis=-1)[..., 0]
    return -(1 - smoothing) * right - smoothing * jnp.mean(logp, -1)


def asymmetric(
    logits: Float[Array, "B C"],
    label: Float[Array, "B C"],
    negative: float = 4.0,
    positive: float = 1.0,
    margin: float = 0.05,
) -> Float[Array, " B"]:
    """Binary cross-entropy that plays down what is easy, negatives above all; mean over classes.

    The term of a class is multiplied by (1 - probability of its label) to the power `negative` or
    `positive`; negatives count as `margin` more probable than they are, so that easy ones vanish.
    Ridnik et al. 2021 (arXiv:2009.14119) equations 3 to 6, with a gradient through the powers.
    """
    p = jax.nn.sigmoid(logits)
    absent = jnp.minimum(1 - p + margin, 1)
    entropy = label * jnp.log(jnp.maximum(p, 1e-8))
    entropy += (1 - label) * jnp.log(jnp.maximum(absent, 1e-8))
    power = positive * label + negative * (1 - label)
    # Floored, for the gradient of 0 to a power between 0 and 1 is infinite.
    easiness = jnp.maximum(1 - p * label - absent * (1 - label), 1e-8)
    return -jnp.mean(entropy * easiness**power, -1)


def orthogonality(directions: Float[Array, "C J D"]) -> Float[Array, ""]:
    """Return how far the unit vectors of each class are from orthogonal to each other.

    One Frobenius norm of (U U^T - 1) over all classes, divided by its C J^2 elements
    (Bird-MAE, arXiv:2504.12880; its weight in the published loss is 1).
    """
    gram = jnp.einsum("cid,cjd->cij", directions, directions)
    return jnp.linalg.norm(gram - jnp.eye(gram.shape[1])[None]) / gram.size
