"""Train a tokenizer whose codes tell what a teacher has learned: BEATs' self-distilled tokenizer.

Chen et al. 2023 (arXiv:2212.09058) section 3.2. Its codes are the targets of the next encoder.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.layers.dense import Linear
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.quantizers import codebooks
from ssl_audio.slots import AnyObjective, Backbone, Quantizer, Tokenizer
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class DistillCodes(Encoding):
    """Estimate a teacher's features from the codes of the same patches.

    Attributes:
      frontend: what the tokenizer takes.
      tokenizer: its features → tokens.
      encoder: any backbone; its last layer is quantised.
      quantizer: `codebooks:Cosine`.
      estimator: a shallow backbone from quantised vectors to the teacher's features.
      teacher: an objective that offers "encode" on the same grid; frozen, in `extra`.
      decay: of the moving average that a codebook's entry is.
      commitment: weight of the mean squared distance of vectors and their entries.
    """

    frontend: Frontend
    tokenizer: Tokenizer
    encoder: Backbone
    quantizer: Quantizer
    estimator: Backbone
    teacher: AnyObjective
    decay: float = 0.99
    commitment: float = 1.0

    needs: ClassVar[tuple[str, ...]] = ("book",)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, the codebook and the teacher."""
        keys = jax.random.split(key, 7)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        quantizer = dict(self.quantizer.init(keys[2], encoded.tokens.x)["params"])
        book = quantizer.pop("book")
        frozen, state = self.teacher.init(keys[3], batch)
        taught = self.teacher.predictors()["encode"](frozen, state, batch).tokens.x
        width = self.estimator.width
        blank = jnp.zeros((*tokens.x.shape[:2], book.shape[-1]), jnp.float32)
        inner, into = Linear(width).init_with_output(keys[4], blank)
        estimator = self.estimator.init(keys[5], tokens.replace(x=inner))
        params = {
            "tokenizer": tokenizer["params"],
            "encoder": encoder["params"],
            "quantizer": quantizer,
            "into": into["params"],
            "estimator": estimator["params"],
            "out": Linear(taught.shape[-1]).init(keys[6], inner)["params"],
        }
        extra = {
            "book": codebooks.unit(book),
            "started": jnp.zeros((), bool),
            "teacher": {"params": frozen, "extra": state},
        }
        return params, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return one minus the mean cosine with the teacher, and the commitment; move the codebook."""
        start_key, drop_key = jax.random.split(key)
        rngs = {"drop_path": drop_key} if train else None
        z, tokens = self._vectors(params, extra, batch, train, rngs)
        book, flat = extra["book"], jax.lax.stop_gradient(z.reshape(-1, z.shape[-1]))
        if train:
            # The first batch says where to begin.
            book = jax.lax.cond(
                extra["started"],
                lambda: book,
                lambda: codebooks.unit(codebooks.kmeans(start_key, flat, len(book))),
            )
        code = codebooks.nearest(jax.lax.stop_gradient(z), book)
        entry = book[code]
        inner = Linear(self.estimator.width).apply(
            {"params": params["into"]}, codebooks.straight_through(z, entry)
        )
        weights = {"params": params["estimator"]}
        estimated: Any = self.estimator.apply(
            weights, tokens.replace(x=inner), train=train, rngs=rngs
        )
        teacher = jax.lax.stop_gradient(extra["teacher"])
        encode = self.teacher.predictors()["encode"]
        taught = jax.lax.stop_gradient(encode(teacher["params"], teacher["extra"], batch).tokens.x)
        made: Any = Linear(taught.shape[-1]).apply({"params": params["out"]}, estimated.tokens.x)
        cosine = jnp.sum(codebooks.unit(made) * codebooks.unit(taught), -1)
        away = jnp.mean((entry - z) ** 2)
        total = jnp.mean(1 - cosine) + self.commitment * away
        if train:
            moved = codebooks.moved(book, flat, code.reshape(-1), self.decay)
            extra = extra | {"book": moved, "started": jnp.ones((), bool)}
        used = codebooks.usage(code, len(book))
        metrics = {
            "cosine": (jnp.sum(cosine), float(cosine.size)),
            "commitment": (away, 1.0),
            "codes_in_use": (codebooks.perplexity(used), 1.0),
        }
        return Loss(total=total, metrics=metrics, extra=extra)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "codes"."""
        return {"encode": self.encode, "codes": self.codes}

    def codes(self, params: Params, extra: Extra, batch: Batch) -> Int[Array, "B N Q"]:
        """Return the code of each token; Q is 1."""
        z, _ = self._vectors(params, extra, batch, False, None)
        return codebooks.nearest(z, extra["book"])[..., None]

    def _vectors(self, params, extra, batch, train, rngs):
        spec = self.frontend(batch["audio"], batch["length"])
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        encoder = {"params": params["encoder"]}
        encoded: Any = self.encoder.apply(encoder, tokens, train=train, rngs=rngs)
        weights = {"params": params["quantizer"] | {"book": extra["book"]}}
        z = self.quantizer.apply(weights, encoded.tokens.x, method="vectors")
        return z, encoded.tokens
