"""Loss functions: pure, on plain arrays, called by the objectives."""

import functools

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int


def patch_nce(
    predicted: Float[Array, "B K G"], target: Float[Array, "B K G"], over: str = "predictions"
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Match masked patches of a clip to their predictions: (loss, accuracy) per clip.

    Plain dot products, no temperature, negatives from the same clip only (SSAST section 3.3). The
    released models were trained with the softmax over the clip's predictions for a fixed target; the paper's
    equation 1 has it over targets for a fixed prediction. `over` is "predictions" or "targets".
    Accuracy: normalise over predictions, then choose a target for each prediction.
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


def sigmoid_pairs(
    similarity: Float[Array, "B J"],
    belongs: Float[Array, "B J"],
    temperature: Float[Array, ""] | float,
    bias: Float[Array, ""] | float,
) -> Float[Array, " B"]:
    """Tell of each pair whether it belongs together, summed over a row (SigLIP, arXiv:2303.15343).

    -log sigmoid(y (s / temperature + bias)), with y = 1 where `belongs` is 1, and -1 where it is 0.
    """
    sign = 2 * belongs - 1
    return -jnp.sum(jax.nn.log_sigmoid(sign * (similarity / temperature + bias)), axis=-1)


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


def divergence(logits: Float[Array, "B C"], other: Float[Array, "B C"]) -> Float[Array, " B"]:
    """Return the Kullback-Leibler divergence of `other`'s distribution from that of `logits`, nats."""
    logp, logr = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    return jnp.sum(jnp.exp(logp) * (logp - logr), -1)


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
    """Return asymmetric cross-entropy: easy classes weigh less, negatives above all; mean over classes.

    The term of a class is multiplied by (1 - probability of its label) to the power `negative` or
    `positive`; the probability that a class is absent is raised by `margin`, so that the term of an easy
    negative is 0.
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


def unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Scale vectors to length 1."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, -1, keepdims=True), 1e-24))


def spread(x: Float[Array, "B D"]) -> Float[Array, ""]:
    """Return the mean deviation of unit vectors' values, times sqrt(D): 1 at random, 0 collapsed."""
    return jnp.mean(jnp.std(unit(x), axis=0)) * x.shape[-1] ** 0.5


def info_nce(
    logits: Float[Array, "B K"], positive: Float[Array, "B K"] | None = None
) -> Float[Array, " B"]:
    """Cross-entropy of each row with its positives (van den Oord et al. 2018, arXiv:1807.03748).

    Args:
      logits: scaled similarities; columns beyond the batch are further negatives.
      positive: weights of the right columns, scaled to sum to 1 in each row; a row without any counts 0.
        None: column i is right for row i.
    """
    if positive is None:
        right = jnp.diagonal(logits)
        return jax.nn.logsumexp(logits, axis=1) - right
    share = positive / jnp.maximum(jnp.sum(positive, 1, keepdims=True), 1e-6)
    return -jnp.sum(share * jax.nn.log_softmax(logits, axis=1), axis=1)


def sup_con(
    logits: Float[Array, "B K"],
    positive: Float[Array, "B K"],
    itself: Bool[Array, "B K"] | None = None,
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Supervised contrastive loss (Khosla et al. 2020, arXiv:2004.11362, equation 2).

    Args:
      logits: scaled similarities of each row's example to all others.
      positive: above 0 where a column has a label in common; each of those counts alike.
      itself: columns that are the row's own example; they are nowhere in the sum. None: there are none.

    Returns:
      Minus the mean log probability of the positives, whether the most similar is one of them, and whether
      there are any; where there are none, 0, 0 and 0.
    """
    if itself is not None:
        # Finite, since their weight of 0 multiplies it.
        logits = jnp.where(itself, -1e9, logits)
        positive = jnp.where(itself, 0, positive)
    right = (positive > 0).astype(logits.dtype)
    count = jnp.sum(right, axis=1)
    best = jnp.argmax(logits, axis=1)
    hits = jnp.take_along_axis(right, best[:, None], axis=1)[:, 0]
    return info_nce(logits, right), hits, (count > 0).astype(logits.dtype)


def nt_xent(
    x: Float[Array, "B D"], y: Float[Array, "B D"], temperature: float
) -> tuple[Float[Array, "B2"], Float[Array, "B2"]]:
    """Tell each vector's partner in the other view from all others of both views: (loss, accuracy).

    Chen et al. 2020, SimCLR (arXiv:2002.05709), equation 1; the loss of equal vectors is ln(2 B - 1).

    Args:
      x, y: unit vectors of two views of each clip.
      temperature: divides the cosines.

    Returns:
      Of all rows of x, then of all rows of y.
    """
    itself = jnp.eye(len(x), dtype=bool)
    found = []
    for one, other in ((x, y), (y, x)):
        same = jnp.where(itself, -jnp.inf, one @ one.T)
        logits = jnp.concatenate([one @ other.T, same], axis=1) / temperature
        hit = jnp.argmax(logits, axis=1) == jnp.arange(len(x))
        found.append((info_nce(logits), hit.astype(jnp.float32)))
    loss, hit = zip(*found, strict=True)
    return jnp.concatenate(loss), jnp.concatenate(hit)


def weighted_mean(
    values: Float[Array, " B"], weight: Float[Array, " B"] | None = None
) -> Float[Array, ""]:
    """Return sum(w v) / sum(w) over the whole batch, never the mean of devices' means."""
    if weight is None:
        return jnp.mean(values)
    return jnp.sum(weight * values) / jnp.maximum(jnp.sum(weight), 1e-6)


def reversal_bias(batch: int, same: float, cross: float) -> Float[Array, "K K"]:
    """Return what is added to the logits of [forward clips; reversed clips], K = 2 * batch.

    A clip against its own reversal gets log(same), against other reversed clips log(cross): 1 makes them
    ordinary negatives, more counts them more often, 0 takes them out (Bagad et al. 2023,
    arXiv:2301.02074, section 4.2).
    """
    near, zero = jnp.eye(batch), jnp.zeros((batch, batch))
    across = near * jnp.log(same + 1e-8) + (1 - near) * jnp.log(cross + 1e-8)
    return jnp.block([[zero, across], [across, zero]])


def joint_nce(
    x: Float[Array, "B D"],
    y: Float[Array, "B M D"],
    temperature: float | Float[Array, ""],
    valid: Float[Array, "B *M"] | None = None,
) -> Float[Array, " B"]:
    """One softmax over both directions, with M positives per row (MIL-NCE, arXiv:1912.06430).

    As in VATT (arXiv:2104.11178, section 3.4): the denominator of row i holds x_i against all y and all x
    against y_i, so that its positives are in it twice. M = 1 is the NCE of two modalities. Rows whose y is
    not `valid` are nobody's negatives, and neither are single candidates that are not (`valid` [B, M]); leave
    out the loss of rows without any with `weighted_mean`: it means nothing, but is finite.
    """
    scores = jnp.einsum("id,jmd->ijm", x, y) / temperature
    right = jnp.diagonal(scores, axis1=0, axis2=1).T  # [B, M]
    ahead, back = scores, jnp.moveaxis(scores, 1, 0)
    if valid is not None:
        there = jnp.broadcast_to(valid.reshape(len(y), -1) > 0, right.shape)
        ahead = jnp.where(there[None], scores, -jnp.inf)
        usable = there | ~jnp.any(there, axis=1, keepdims=True)
        right = jnp.where(usable, right, -jnp.inf)
        back = jnp.where(usable[:, None], back, -jnp.inf)
    both = jnp.concatenate([ahead.reshape(len(x), -1), back.reshape(len(x), -1)], axis=1)
    return jax.nn.logsumexp(both, axis=1) - jax.nn.logsumexp(right, axis=1)


def cosine_distance(x: Float[Array, "B D"], y: Float[Array, "B D"]) -> Float[Array, " B"]:
    """Return 1 - cos of each pair (BYOL, arXiv:2006.07733, equation 2, is twice this)."""
    return 1 - jnp.sum(unit(x) * unit(y), axis=-1)


def sharpened(share: Float[Array, "*B C"], temperature: float) -> Float[Array, "*B C"]:
    """Return distributions to the power 1 / temperature, scaled to sum to 1: below 1 the likely gains.

    Berthelot et al. 2019, MixMatch (arXiv:1905.02249).
    """
    # Of the likeliest: to a high power all of many classes would vanish, and leave 0 / 0.
    power = (share / jnp.max(share, -1, keepdims=True)) ** (1 / temperature)
    return power / jnp.sum(power, -1, keepdims=True)


def aligned(
    share: Float[Array, "B C"], wanted: Float[Array, " C"], found: Float[Array, " C"]
) -> Float[Array, "B C"]:
    """Return predictions times wanted / found, scaled to sum to 1; as they are where nothing of them is left.

    Berthelot et al. 2020, ReMixMatch (arXiv:1911.09785): distribution alignment.

    Args:
      share: predicted distributions.
      wanted: mean of the labels.
      found: mean of the predictions.
    """
    moved = share * (wanted / jnp.maximum(found, 1e-6))[None]
    left = jnp.sum(moved, -1, keepdims=True)
    return jnp.where(left > 0, moved / jnp.where(left > 0, left, 1), share)


def confident(share: Float[Array, "B C"], threshold: float) -> Float[Array, " B"]:
    """Return 1 where the likeliest class is at least so likely, else 0 (FixMatch, arXiv:2001.07685)."""
    return (jnp.max(share, -1) >= threshold).astype(jnp.float32)


def jensen_shannon(one: Float[Array, "B C"], other: Float[Array, "B C"]) -> Float[Array, " B"]:
    """Return the Jensen-Shannon divergence of the distributions of two models' logits, nats.

    Qiao et al. 2018, Deep Co-Training (arXiv:1803.05984): the entropy of the mean, less the
    mean of the entropies, both of each example.
    """
    mean = (jax.nn.softmax(one) + jax.nn.softmax(other)) / 2
    mixed = -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-8)), -1)
    own = [-jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x), -1) for x in (one, other)]
    return mixed - (own[0] + own[1]) / 2


def teaching(teacher: Float[Array, "B C"], student: Float[Array, "B C"]) -> Float[Array, " B"]:
    """Return the cross-entropy of a student's logits with the distribution of a teacher's logits."""
    return -jnp.sum(jax.nn.softmax(teacher) * jax.nn.log_softmax(student), -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def bounded(x: Array, low: float, high: float) -> Array:
    """Clip a learned number; beyond a bound, only gradients that lead back pass.

    So descent never gets stuck where a plain clip has no gradient.
    """
    return jnp.clip(x, low, high)


def _bounded_forward(x, low, high):
    return bounded(x, low, high), x


def _bounded_backward(low, high, x, gradient):
    # Descent moves against the gradient: a negative one raises x.
    outward = ((x >= high) & (gradient < 0)) | ((x <= low) & (gradient > 0))
    return (jnp.where(outward, 0, gradient),)


bounded.defvjp(_bounded_forward, _bounded_backward)
