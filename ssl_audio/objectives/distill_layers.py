"""Predict layers of one or several frozen teachers from layers of a student, frame by frame.

USAD (Chang et al. 2025, arXiv:2506.18843) and USAD 2.0 (arXiv:2606.06444), whose weights go by domain.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.frontend.base import before
from ssl_audio.heads.readout import averaged, frame_tokens
from ssl_audio.losses import unit
from ssl_audio.objectives import teacher
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.slots import AnyFrontend, AnyObjective, Backbone, Projector, Tokenizer
from ssl_audio.structs import Encoded, Loss

FINAL = -1  # the layer that means: after the last norm
UNKNOWN = -1  # the domain of a clip of which nothing is said


@dataclasses.dataclass(frozen=True)
class DistillLayers(Encoding):
    """Descend |z' - z| / D - log sigmoid(cos(z', z)), averaged over frames and pairs of layers.

    z is a teacher's feature of a frame and z' what a head makes of the student's. A frame is a column of
    tokens in time. Where the rates differ the faster ones' frames are averaged: the predictions, if the
    student is the faster. Frames that begin after a clip's end do not count. Each teacher hears the
    waveform and makes its own features of it, of as many frames as the batch has.

    Attributes:
      frontend, tokenizer, encoder: the student's, of any kind.
      teachers: name → an objective that offers "encode", as `ssl_audio.inference.frozen:Frozen` of a run
        or of an exported or converted folder. They stay as they are, in `extra`.
      pairs: of each teacher, (layer of the student, layer of the teacher), …; -1: after the last norm.
      projector: template of the heads, one for each pair; its `out` becomes the teacher's width.
      tap: numbered layers are what their perceptrons give before it is added, of student and teachers; False:
        the streams after them.
      standardise: each channel of a teacher's layer is predicted less its mean and over its deviation, of
        all batches before this one. Layers differ in scale, and single channels lie far from 0 or spread
        many times as far as the others.
      domains: teacher → numbers of the domains, in `batch["domain"]`, that it is for.
      matched: a clip's teachers of its domain count so many times as much as the others; 1: all alike.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    teachers: Mapping[str, AnyObjective] = dataclasses.field(hash=False)
    pairs: Mapping[str, tuple[tuple[int, int], ...]] = dataclasses.field(hash=False)
    projector: Projector
    tap: bool = False
    standardise: bool = False
    domains: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict, hash=False)
    matched: float = 1.0

    def __post_init__(self):
        known = ", ".join(sorted(self.teachers)) or "none"
        if not self.teachers or self.pairs.keys() != self.teachers.keys():
            got = ", ".join(sorted(self.pairs)) or "none"
            raise ValueError(f"pairs: got those of {got}; wanted some of each teacher: {known}.")
        for name, pairs in self.pairs.items():
            if not pairs or any(len(pair) != 2 for pair in pairs):
                wanted = "(layer of the student, layer of the teacher), …"
                raise ValueError(f"pairs.{name}: got {pairs}; wanted {wanted}")
        if wrong := sorted(self.domains.keys() - self.teachers.keys()):
            raise ValueError(f"domains: got {wrong[0]}; wanted names of teachers: {known}.")
        if self.matched <= 0:
            raise ValueError(f"matched is {self.matched}; it must be above 0.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters of the student and the heads; and the teachers.

        Raises:
          ValueError: no such layer; a teacher of another sampling rate, or of a frame rate that is no
            multiple or fraction of the student's.
        """
        student_key, encoder_key, key = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(student_key, spec)
        student = self._read(self.encoder)
        encoded, encoder = student.init_with_output(encoder_key, tokens, layers=True)
        heads, teachers, statistics = {}, {}, {}
        for name, frozen in sorted(self.teachers.items()):
            teacher_key, key = jax.random.split(key)
            weights, state = frozen.init(teacher_key, batch)
            teachers[name] = {"params": weights, "extra": state}
            taught = self.taught(name, teachers[name], batch)
            heads[name], statistics[name] = {}, {}
            for number, (mine, theirs) in enumerate(self.pairs[name]):
                x = frames(encoded, mine, f"pairs.{name}: the student")
                width = frames(taught, theirs, f"pairs.{name}: the teacher").shape[-1]
                head_key, key = jax.random.split(key)
                made: Any = self.projector.clone(out=width).init(head_key, x[:, 0])
                heads[name][_pair(number)] = made["params"]
                statistics[name][_pair(number)] = teacher.unheard(width)
        params = {"tokenizer": tokenizer.get("params", {}), "encoder": encoder["params"]}
        extra = {"teachers": teachers} | ({"statistics": statistics} if self.standardise else {})
        return params | {"heads": heads}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over clips, each teacher weighted as the clip's domain says."""
        tokens = self.tokenized({"params": params.get("tokenizer", {})}, batch)
        rngs = {"drop_path": key} if train else None
        encoded: Any = self._read(self.encoder).apply(
            {"params": params["encoder"]}, tokens, train=train, layers=True, rngs=rngs
        )
        count = len(batch["audio"])
        weights = self.weights(batch.get("domain", jnp.full(count, UNKNOWN, jnp.int32)))
        total, metrics, clips = jnp.zeros(()), {}, float(count)
        after: dict[str, Any] = {}
        for number, name in enumerate(sorted(self.teachers)):
            taught = jax.lax.stop_gradient(self.taught(name, extra["teachers"][name], batch))
            pairs, after[name] = [], {}
            for n, (mine, theirs) in enumerate(self.pairs[name]):
                z = frames(taught, theirs, f"pairs.{name}: the teacher").astype(jnp.float32)
                x = frames(encoded, mine, f"pairs.{name}: the student")
                head = {"params": params["heads"][name][_pair(n)]}
                flat: Any = self.projector.clone(out=z.shape[-1]).apply(
                    head, x.reshape(-1, x.shape[-1])
                )
                made, z = self.together(name, flat.reshape(*x.shape[:2], -1), z)
                there = self.heard(name, batch["length"], z.shape[1])
                if self.standardise:
                    known = extra["statistics"][name][_pair(n)]
                    after[name][_pair(n)] = teacher.heard(known, z, there) if train else known
                    z = teacher.standard(z, known)
                pairs.append([_over(there, x) for x in distances(made, z)])
            away, cosine, error = jnp.mean(jnp.array(pairs), axis=0)  # [B] each
            total = total + jnp.mean(weights[:, number] * error)
            for what, value in (("distance", away), ("cosine", cosine)):
                metrics[f"{name}/{what}"] = (jnp.sum(value), clips)
        extra = extra | ({"statistics": after} if self.standardise else {})
        return Loss(total=total, metrics=metrics, extra=extra)

    def weights(self, domain: Int[Array, "B"]) -> Float[Array, "B M"]:
        """Return how much each of the M teachers, by their names' order, counts for each clip; sums are 1.

        One of M matches: it gets w / (w + M - 1), the others 1 / (w + M - 1) each, with w = `matched`. None
        or all do: 1 / M.
        """
        columns = []
        for name in sorted(self.teachers):
            own = jnp.array(self.domains.get(name) or (UNKNOWN,), jnp.int32)
            match = jnp.any(domain[:, None] == own[None], axis=1) & (domain != UNKNOWN)
            columns.append(jnp.where(match, self.matched, 1.0))
        found = jnp.stack(columns, axis=1)
        return found / jnp.sum(found, axis=1, keepdims=True)

    def taught(self, name: str, state: Any, batch: Batch) -> Encoded:
        """Return what a teacher makes of a batch, as long as that: see `teacher.encoded`."""
        frozen = teacher.heard_by(self.teachers[name])
        if not hasattr(frozen, "frontend"):
            what = type(frozen).__name__
            raise ValueError(f"teachers.{name}: got a {what}; wanted an encoder of sound alone.")
        frontend = frozen.frontend
        if frontend.rate != self.frontend.rate:
            raise ValueError(
                f"teachers.{name}: hears {frontend.rate} Hz, the student {self.frontend.rate} Hz; wanted "
                "the same: give the student a front end of that rate."
            )
        if any(theirs != FINAL for _, theirs in self.pairs[name]):
            frozen = dataclasses.replace(frozen, encoder=self._read(frozen.encoder))
        return teacher.encoded(frozen, state, batch)

    def _read(self, encoder: Any) -> Any:
        """Return an encoder whose layers are those that are predicted."""
        if not self.tap:
            return encoder
        block: Any = getattr(encoder, "block", None)
        if not hasattr(block, "tap"):
            raise ValueError(
                f"tap: {type(block or encoder).__name__} cannot be tapped; wanted layers of blocks:PreNorm "
                "or post_norm, or tap=False."
            )
        return encoder.copy(block=block.copy(tap=True))

    def together(
        self, name: str, made: Float[Array, "B N D"], z: Float[Array, "B M D"]
    ) -> tuple[Float[Array, "B K D"], Float[Array, "B K D"]]:
        """Return predictions and features of a teacher at the rate of the slower, of the same frames."""
        mine, theirs = teacher.spacing(self), teacher.spacing(teacher.heard_by(self.teachers[name]))
        slow, fast = max(mine, theirs), min(mine, theirs)
        if slow % fast:
            raise ValueError(
                f"teachers.{name}: a frame every {theirs} samples, the student one every {mine}; wanted "
                "one to be a multiple of the other: choose the student's tokenizer.stride so."
            )
        made, z = averaged(made, slow // mine), averaged(z, slow // theirs)
        count = min(made.shape[1], z.shape[1])
        return made[:, :count], z[:, :count]

    def heard(self, name: str, length: Int[Array, "B"], count: int) -> Bool[Array, "B K"]:
        """Return which of the frames that `together` gives begin before a clip's end."""
        spacing = max(teacher.spacing(self), teacher.spacing(teacher.heard_by(self.teachers[name])))
        return before(-(-length // spacing), count)


def frames(encoded: Encoded, layer: int, whose: str) -> Float[Array, "B T D"]:
    """Return a layer's tokens by columns in time, [B, T, rows * D].

    Raises:
      ValueError: there is no such layer.
    """
    # Layers of different sizes, as of convolutional networks, are no frames of the tokens' grid.
    count = (
        0 if encoded.layers is None or isinstance(encoded.layers, tuple) else len(encoded.layers)
    )
    if not FINAL <= layer < count:
        numbers = f"0 to {count - 1}, or " if count else ""
        raise ValueError(
            f"objective.{whose} has no layer {layer}; wanted {numbers}-1 for the final one."
        )
    layers: Any = encoded.layers
    x = encoded.tokens.x if layer == FINAL else layers[layer]
    tokens = dataclasses.replace(encoded.tokens, x=x)
    return frame_tokens(dataclasses.replace(encoded, tokens=tokens))


def distances(
    made: Float[Array, "B K D"], z: Float[Array, "B K D"]
) -> tuple[Float[Array, "B K"], Float[Array, "B K"], Float[Array, "B K"]]:
    """Return of each frame the mean absolute difference, the cosine, and the loss made of both."""
    away = jnp.mean(jnp.abs(made - z), axis=-1)
    cosine = jnp.sum(unit(made) * unit(z), axis=-1)
    return away, cosine, away - jax.nn.log_sigmoid(cosine)


def _over(there: Bool[Array, "B K"], x: Float[Array, "B K"]) -> Float[Array, "B"]:
    """Return the mean of each clip's frames."""
    return jnp.sum(jnp.where(there, x, 0), axis=1) / jnp.maximum(jnp.sum(there, axis=1), 1)


def _pair(number: int) -> str:
    return f"pair_{number}"
