"""A head on frozen features of an encoder, and the encoder's objective within: a probe that is kept.

Written by `evaluate --save` and by the few-shot loop; read back as `inference.probe.ProbeClassifier`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.heads import readout
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import AnyObjective, Head
from ssl_audio.structs import Encoded, Loss, Tokens

FINAL = -1
VIEWS = ("pooled", "layers", "tokens", "all")
READS = ("encode", "pooled", "embedding")


@dataclasses.dataclass(frozen=True)
class Probe(Objective):
    """Standardise what a frozen encoder makes of a clip, then a head; it is trained elsewhere.

    Parameters: those of `base` and `head`, and the `centre` and `gain` of the standardisation.

    Attributes:
      base: the encoder's objective.
      head: Encoded → logits. One vector per clip comes as one token.
      view: "pooled": one vector per clip; "layers": the mean over time of each frequency row, of every
        layer; "tokens": all patch tokens; "all": those of every layer, and each layer's special token.
      layer: of the encoder; -1: after the last norm. Of "layers" and "all": all.
      pool: tokens → vector, as `Encoder.embed`; of "pooled".
      columns: in the views "tokens" and "all" shorter clips are filled up to so many patch columns, which
        the head does not count; 0: they are not.
      reads: "encode": tokens; "pooled": what the audio tower of `base` pools, before its projection;
        "embedding": its unit vector, in the space that sound and text share.
      unit: vectors are divided by their length before they are standardised.
      criterion: "softmax": one label a clip; "sigmoid": any number.
    """

    interface: ClassVar[str] = "ssl_audio.inference.probe:ProbeClassifier"

    base: AnyObjective
    head: Head
    view: str = "pooled"
    layer: int = FINAL
    pool: str = "mean"
    columns: int = 0
    reads: str = "encode"
    unit: bool = False
    criterion: str = "softmax"

    def __post_init__(self):
        wanted: dict[str, tuple[str, ...]] = dict(view=VIEWS, reads=READS, pool=tuple(POOLS))
        wanted["criterion"] = ("softmax", "sigmoid")
        for name, values in wanted.items():
            if (got := getattr(self, name)) not in values:
                raise ValueError(f"{name}: got {got!r}, wanted one of {', '.join(values)}.")
        if self.reads != READS[0] and self.view != VIEWS[0]:
            raise ValueError(f"view: got {self.view!r}, but a tower's vectors are 'pooled'.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters that leave features as they are, and the encoder's other state."""
        first, second = jax.random.split(key)
        base, extra = self.base.init(first, batch)
        x = self.features(base, batch)
        shape = x.shape[1:]
        if self.view == "tokens":
            shape = (1, 1, shape[-1])
        if self.view == "all":
            shape = (1, 1, *shape[-2:])
        head: Any = self.head.init(second, encoded(x, self.view))
        still = dict(centre=jnp.zeros(shape, jnp.float32), gain=jnp.ones(shape, jnp.float32))
        return {"base": base, "head": head["params"], **still}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Raise ValueError."""
        raise ValueError(
            "objective 'probe' has no loss: `ssl-audio evaluate --save` trains it. To train the encoder "
            "as well: ssl-audio finetune."
        )

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", where `base` does, and "logits".

        What else `base` offers, as scores of its own classes in time, is about nothing that the head knows.
        """
        offered: dict[str, Predictor] = {"logits": self.logits}
        if encode := self.base.predictors().get("encode"):
            offered["encode"] = lambda params, extra, batch: encode(params["base"], extra, batch)
        return offered

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return class logits of clips that are encoded whole."""
        del extra
        return self.decide(params, self.features(params["base"], batch))

    def decide(self, params: Params, x: Float[Array, "B ..."]) -> Float[Array, "B C"]:
        """Return class logits of features, as `features` gives them, of float16 too."""
        seen = encoded(standardised(x, params["centre"], params["gain"]), self.view)
        return self.head.apply({"params": params["head"]}, seen)

    def features(self, params: Params, batch: Batch) -> Float[Array, "B ..."]:
        """Return what the head looks at: by `view`, see `inference.probe.features`.

        Args:
          params: of `base`.
          batch: clips that are encoded whole.
        """
        if self.reads != "encode":
            return self._unit(self._of_tower(params, batch))
        found = self.base.predictors()["encode"](params, {}, batch)
        if self.view == "layers":
            return jnp.stack([_rows(_with(found, x)) for x in found.layers], axis=1)
        if self.view == "all":
            return self._heard(readout.all_tokens(found), found.tokens)
        if self.layer != FINAL:
            found = _with(found, found.layers[self.layer])
        if self.view == "tokens":
            x = found.tokens.x.reshape(-1, *found.tokens.grid, found.tokens.x.shape[-1])
            return self._heard(x, found.tokens)
        return self._unit(POOLS[self.pool](found))

    def _of_tower(self, params: Params, batch: Batch) -> Float[Array, "B D"]:
        if self.reads == "embedding":
            return self.base.embed("audio", params, batch)
        tower, own = self.base.towers["audio"], params["audio"]
        return tower.pooled(own, tower.encode(own, batch, "audio"))

    def _unit(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return unit(x) if self.unit else x

    def _heard(self, x: Float[Array, "B rows columns ..."], tokens: Tokens) -> Any:
        """Return maps as `inference.probe` keeps them: NaN where there is no sound, as wide as `columns`."""
        beyond = [(0, 0)] * (x.ndim - 3)
        if tokens.valid is not None:
            valid = tokens.valid.reshape(x.shape[0], *tokens.grid)
            rows = (0, x.shape[1] - valid.shape[1])  # more are of special tokens
            valid = jnp.pad(valid, ((0, 0), rows, (0, 0)), constant_values=True)
            x = jnp.where(jnp.expand_dims(valid, range(3, x.ndim)), x, jnp.nan)
        more = (0, max(0, self.columns - x.shape[2]))
        return jnp.pad(x, [(0, 0), (0, 0), more, *beyond], constant_values=jnp.nan)


def standardised(x: Any, centre: Any, gain: Any) -> Any:
    """Return (x - centre) * gain in float32; float16 overflows in sums."""
    return (jnp.asarray(x).astype(jnp.float32) - centre[None]) * gain[None]


def unit(x: Any) -> Any:
    """Return vectors of length 1."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def encoded(x: Float[Array, "B ..."], view: str) -> Encoded:
    """Return features of a view, see `inference.probe.features`, as heads take them."""
    if view == "all":
        every = [encoded(x[:, :-1, :, i], "tokens").tokens for i in range(x.shape[3])]
        special = jnp.nanmean(x[:, -1], axis=1)  # windows of a long clip differ in it
        specials = jnp.moveaxis(special, 1, 0)[:, :, None]
        return Encoded(every[-1], layers=jnp.stack([t.x for t in every]), specials=specials)
    if view == "tokens":
        b, rows, columns, width = x.shape
        index = jnp.broadcast_to(jnp.arange(rows * columns)[None], (b, rows * columns))
        valid = ~jnp.isnan(x[..., 0]).reshape(index.shape)
        flat = jnp.where(valid[..., None], x.reshape(*index.shape, width), 0)
        return Encoded(Tokens(flat, index, (rows, columns), valid))
    layers = jnp.moveaxis(x, 1, 0)[:, :, None] if view == "layers" else None
    last = x[:, None] if layers is None else layers[-1]
    return Encoded(Tokens(last, jnp.zeros((x.shape[0], 1), jnp.int32), (1, 1)), layers=layers)


def _rows(found: Encoded) -> Float[Array, "B D"]:
    """Return the mean over time of each frequency row, side by side."""
    return _moments(found)[0]


def _statistics(found: Encoded) -> Float[Array, "B D"]:
    """Return the mean and the deviation of each frequency row over time."""
    mean, square = _moments(found)
    return jnp.concatenate([mean, jnp.sqrt(square)], axis=-1)


def _moments(found: Encoded) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Return mean and variance of each frequency row's valid tokens over time."""
    tokens = found.tokens
    x = tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1)
    weight = jnp.ones(x.shape[:3]) if tokens.valid is None else tokens.valid.reshape(x.shape[:3])
    weight = (weight / jnp.maximum(jnp.sum(weight, axis=2, keepdims=True), 1))[..., None]
    mean = jnp.sum(weight * x, axis=2, keepdims=True)
    square = jnp.sum(weight * (x - mean) ** 2, axis=2)
    return mean.reshape(x.shape[0], -1), square.reshape(x.shape[0], -1)


POOLS = {
    "mean": readout.mean_tokens,
    "rows": _rows,
    "stats": _statistics,
    "special": readout.special_tokens,
}


def _with(found: Encoded, x: Array) -> Encoded:
    return dataclasses.replace(found, tokens=dataclasses.replace(found.tokens, x=x))
