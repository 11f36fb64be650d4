"""Heads trained on frozen features of clips, of tokens or of all layers, for `evaluate.py`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_audio import losses
from ssl_audio.eval.base import Fitted, statistics
from ssl_audio.heads.classify import LayerMix
from ssl_audio.heads.probes import Attentive, Convex, Mlp, Prototypical, directions
from ssl_audio.objectives.probe import encoded, standardised

Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]  # (params, logits, label) → scalar


def entropy(params: Any, logits: jax.Array, label: jax.Array) -> jax.Array:
    """Return the cross-entropy of the softmax."""
    del params
    return jnp.mean(losses.softmax_cross_entropy(logits, label))


def yes_or_no(params: Any, logits: jax.Array, label: jax.Array) -> jax.Array:
    """Return the cross-entropy of a sigmoid for each class, which clips may have several of."""
    del params
    return jnp.mean(losses.sigmoid_cross_entropy(logits, label))


def prototypical(params: Any, logits: jax.Array, label: jax.Array) -> jax.Array:
    """Return the asymmetric loss and the orthogonality term (Bird-MAE, arXiv:2504.12880)."""
    apart = losses.orthogonality(directions(params["prototypes"]))
    return jnp.mean(losses.asymmetric(logits, label)) + apart


@dataclasses.dataclass(frozen=True)
class Trained:
    """Train a head with Adam on frozen features; the rate falls to 0 along a cosine.

    The same call gives the same bits.

    Attributes:
      view: what the head reads. "pooled": one vector per clip, [n, D']; "tokens": the patches on their
        grid, [n, rows, columns, D], NaN where a clip has ended; "layers": every layer's mean over time,
        [n, L, rows * D]; "all": the patches and the special token of every layer, see
        `inference.probe.features`.
      head: module of the number of classes.
      loss: what it descends.
      choices: learning rates.
      faster: parameters by name whose rate is so many times higher.
      decay: parameters by name, matrices only, of which this share times the rate is taken off (AdamW).
      warmup: share of the steps in which the rate rises from 0 first.
      standardise: features, with the training clips'.
      epochs, batch_size: 50 of 64 clips, as Bird-MAE's few-shot probes.
      seed: of initial parameters and batches.
    """

    several: ClassVar[bool] = True

    view: str
    head: Callable[[int], Any]
    loss: Loss = entropy
    choices: tuple[float, ...] = (1e-3,)
    faster: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    decay: Mapping[str, float] = dataclasses.field(default_factory=dict, hash=False)
    warmup: float = 0.0
    standardise: bool = True
    epochs: int = 50
    batch_size: int = 64
    seed: int = 0

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [choices, n] of all rows of x, learned from the rows `train` [n].

        Of multi-hot y [n, C], logits [choices, n, C]; `yes_or_no` then stands for `entropy`.
        """
        size, found = self.batch_size, []
        for rate in self.choices:
            params, read, labels = self._train(x, y, train, rate)
            decide = _programs(self, len(labels))[2]
            made = [
                np.asarray(decide(params, _filled(x[i : i + size], size), *read))
                for i in range(0, len(x), size)
            ]
            logits = np.concatenate(made)[: len(x)]
            found.append(logits if y.ndim == 2 else labels[logits.argmax(axis=-1)])
        return np.stack(found)

    def fit(self, x: np.ndarray, y: np.ndarray, train: np.ndarray, best: int) -> Fitted:
        """Return what `predict` uses for choice number `best`, as a head."""
        params, (centre, gain), labels = self._train(x, y, train, self.choices[best])
        head = _described(self.head(len(labels)))
        params = jax.tree.map(np.asarray, params)
        return Fitted(head, dict(head=params, centre=centre, gain=gain), labels)

    def _train(
        self, x: np.ndarray, y: np.ndarray, train: np.ndarray, rate: float
    ) -> tuple[Any, tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Return the head's parameters, centre and gain of the features, and the labels [C]."""
        labels, known = np.arange(y.shape[-1]), y[train].astype(np.float32)
        if y.ndim == 1:
            labels, known = np.unique(y[train], return_inverse=True)
            known = np.eye(len(labels), dtype=np.float32)[known]
        several = y.ndim == 2 and self.loss is entropy
        model = dataclasses.replace(self, loss=yes_or_no) if several else self
        rows, size = np.flatnonzero(train), self.batch_size
        read = self._read(x, rows)
        init, step, _ = _programs(model, len(labels))
        total = self.epochs * -(-len(rows) // size)
        rng = np.random.default_rng(self.seed)
        params, state = init(jax.random.key(self.seed), x[:1], *read)
        done = 0
        for _ in range(self.epochs):
            # The last batch is filled up with clips drawn again, so that all have one shape.
            order = rng.permutation(len(rows))
            order = np.concatenate([order, rng.integers(len(rows), size=-len(rows) % size)])
            for batch in order.reshape(-1, size):
                now = np.float32(rate * self._share(done, total))
                key = jax.random.fold_in(jax.random.key(self.seed), done)
                params, state = step(params, state, now, key, x[rows[batch]], known[batch], *read)
                done += 1
        return params, read, labels

    def _share(self, done: int, total: int) -> float:
        """Return the share of the rate after so many steps."""
        rising = round(self.warmup * total)
        if done < rising:
            return (done + 1) / rising
        return (1 + np.cos(np.pi * (done - rising) / (total - rising))) / 2

    def _read(self, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return centre and gain of the features."""
        if self.standardise:
            return _statistics(x[rows], per_token=self.view == "tokens")
        shape = (1, 1, *x.shape[3:]) if self.view in ("tokens", "all") else x.shape[1:]
        return np.zeros(shape, np.float32), np.ones(shape, np.float32)


def classifiers() -> dict[str, Trained]:
    """Return the trained heads, by name.

    The rate of "prototypical" is that of Bird-MAE, 0.04; the others' rate is 1e-3. "weighted" is SUPERB's
    downstream model for utterances (arXiv:2105.01051). "convex" is BAT's for ESC-50 (arXiv:2602.16305) with
    256 prototypes of 10 000, which is what a laptop trains in seconds.
    """
    return {
        "attentive": Trained("tokens", Attentive),
        "prototypical": Trained("tokens", Prototypical, prototypical, faster={"prototypes": 40.0}),
        "convex": Trained(
            "all",
            functools.partial(Convex, prototypes=256),
            decay={"linear": 0.2},
            warmup=0.1,
            standardise=False,
            batch_size=48,
        ),
        "weighted": Trained("layers", LayerMix),
        "mlp": Trained("pooled", Mlp),
    }


@functools.lru_cache(16)
def _programs(model: Trained, classes: int) -> Any:
    """Return the jitted start, update and pass to logits; rows of all folds have the same shape."""
    head, adam = model.head(classes), optax.scale_by_adam()

    def seen(x, centre, gain):
        return encoded(standardised(x, centre, gain), model.view)

    @jax.jit
    def init(key, x, centre, gain):
        params = head.init(key, seen(x, centre, gain))["params"]
        return params, adam.init(params)

    @jax.jit
    def step(params, state, rate, key, x, y, centre, gain):
        def value(params):
            logits = head.apply({"params": params}, seen(x, centre, gain), rngs={"dropout": key})
            return model.loss(params, logits, y)

        updates, state = adam.update(jax.grad(value)(params), state, params)

        def descend(path, p, u):
            decay = model.decay.get(path[0].key, 0.0) if p.ndim > 1 else 0.0
            return p - rate * (model.faster.get(path[0].key, 1.0) * u + decay * p)

        return jax.tree_util.tree_map_with_path(descend, params, updates), state

    @jax.jit
    def decide(params, x, centre, gain):
        return head.apply({"params": params}, seen(x, centre, gain))

    return init, step, decide


def _statistics(x: np.ndarray, *, per_token: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and gain over clips; of tokens: over their places too, NaN left out."""
    over = x.reshape(-1, x.shape[-1])[~np.isnan(x[..., 0]).ravel()] if per_token else x
    centre, gain = statistics(over.astype(np.float32))
    return (centre[None, None], gain[None, None]) if per_token else (centre, gain)


def _described(head: Any) -> dict[str, Any]:
    """Return the config of a module whose fields are numbers and words."""
    kind = f"{type(head).__module__.rpartition('.')[2]}:{type(head).__name__}"
    fields = [f.name for f in dataclasses.fields(head) if f.name not in ("parent", "name")]
    return dict(kind=kind, **{name: getattr(head, name) for name in fields})


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    """Return the rows and the last of them again, `size` in all."""
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])
