"""The contract of a pretraining or adaptation method; a new paper is one subclass."""

import abc
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_audio.frontend.base import counted
from ssl_audio.layers.norms import Stored
from ssl_audio.slots import AnyFrontend, AnyObjective, Backbone, Tokenizer
from ssl_audio.structs import Encoded, Loss, Tokens

Params = Any
Extra = Any
Batch = Mapping[str, Any]
Predictor = Callable[[Params, Extra, Batch], Any]
STORED = ("mean", "var")  # names of a norm's running statistics, which are parameters


MAIN = "main"


@dataclasses.dataclass(frozen=True)
class Phase:
    """One optimizer update within a step; adversarial codecs have two.

    Attributes:
      name: of its optimizer state, and before its metrics; MAIN: those are the run's own.
      trains: regex over "/"-joined parameter paths that it updates.
      loss: the method of the objective that gives what it descends, called as `Objective.loss` is.
    """

    name: str = MAIN
    trains: str = ".*"
    loss: str = "loss"

    def covers(self, name: str) -> bool:
        """Tell whether it updates the parameter of a path."""
        return self.trains == ".*" or bool(re.search(self.trains, name))

    def part(self, params: Params) -> Params:
        """Return the parameters that it updates, each in its place.

        Raises:
          ValueError: there are none.
        """
        if self.trains == ".*":
            return params
        named = flatten_dict(params, sep="/")
        found = {name: x for name, x in named.items() if self.covers(name)}
        if not found:
            raise ValueError(
                f"phase {self.name}: '{self.trains}' matches no parameter; there are "
                f"{', '.join(named)}."
            )
        return unflatten_dict(found, sep="/")

    def replaced(self, params: Params, part: Params) -> Params:
        """Return the parameters with other values of those that it updates."""
        if self.trains == ".*":
            return part
        return replaced(params, part)


def replaced(params: Params, part: Params) -> Params:
    """Return parameters with other values of those in `part`, which has them in their places."""
    return unflatten_dict(flatten_dict(params, keep_empty_nodes=True) | flatten_dict(part))


class Objective(abc.ABC):
    """A frozen dataclass whose fields are modules and numbers.

    It is not a linen module, so a teacher's forward pass is an ordinary
    `self.encoder.apply({"params": extra["teacher"]}, …)`.
    """

    phases: ClassVar[tuple[Phase, ...]] = (Phase(),)
    couples_examples: ClassVar[bool] = False  # True: gradient accumulation would change the loss
    needs: ClassVar[tuple[str, ...]] = ()  # entries of `extra` without which predictors cannot work
    # The class that `ssl_audio.load` returns, as "module:Class"; "": chosen by what `predictors` offers.
    interface: ClassVar[str] = ""

    @abc.abstractmethod
    def init(self, key: Any, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters and non-gradient state for batches shaped like `batch`."""

    @abc.abstractmethod
    def loss(self, params: Params, extra: Extra, batch: Batch, key: Any, *, train: bool) -> Loss:
        """Return the loss of one global batch."""

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` after the update (moving averages, centring)."""
        del params, step
        return extra

    def prepare(self) -> dict[str, str]:
        """Do on this machine what must not wait for tracing; return what was chosen, by what it is for.

        Every part with a method `prepare` does so, as one that compiles a kernel. The processes of a run
        call it together, and agree.
        """
        return _prepared(self)

    def predictors(self) -> Mapping[str, Predictor]:
        """Return the functions that a trained model offers, by name: "encode", "reconstruct", …"""
        return {}


def held(params: Params, learns: Callable[[Any], bool]) -> Params:
    """Return parameters in which the running statistics of what does not learn stay as they are.

    Args:
      params: of an objective.
      learns: whether the parameter at a path of JAX does.
    """
    there = {_named(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}

    def leaf(path, value):
        parent, _, last = _named(path).rpartition("/")
        norm = last in STORED and there.issuperset(f"{parent}/{name}" for name in STORED)
        return Stored(value) if norm and not learns(path) else value

    return jax.tree_util.tree_map_with_path(leaf, params)


def check_labelled(batch: Batch, of: str = "") -> None:
    """Raise ValueError if clips of a batch may have no label, for losses that would take that for one.

    `of` begins the names of their entries, as "second_".
    """
    if f"{of}labelled" in batch:
        raise ValueError(
            "data.entries.label.unlabelled: got True, but this objective fits the label of every clip of "
            f"'{of}label'; leave out those without one, or give them beside the others: data.kind='beside'."
        )


def zeroed(params: Params, pattern: str) -> Params:
    """Return parameters with zeros for those whose path holds a regular expression; "": as they are."""

    def leaf(path, value):
        return (
            jax.numpy.zeros_like(value) if pattern and re.search(pattern, _named(path)) else value
        )

    return jax.tree_util.tree_map_with_path(leaf, params)


def _named(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_renewed(objective: Objective, params: Params, loss: Loss) -> None:
    """Raise ValueError if a loss leaves the running statistics of its objective's parts as they were.

    Args:
      objective: whose loss it is.
      params: that the loss was given; see `held`.
      loss: what it returned.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    moving = any(_named(path).rpartition("/")[2] == STORED[0] for path, _ in leaves)
    if loss.renewed is None and moving and collects_statistics(objective):
        raise ValueError(
            f"config.objective: {type(objective).__name__} does not renew running statistics, so those of "
            "its norms:BatchNorm would stay 0 and 1; wanted another norm, as norms:LayerNorm, or an "
            "objective that does, as tagging."
        )


def collects_statistics(part: Any) -> bool:
    """Tell whether an objective's parts, other objectives aside, have running statistics to renew."""
    return any(
        getattr(one, "collects", False)
        or (not isinstance(one, Objective) and collects_statistics(one))
        for one in _inside(part)
    )


def _prepared(part: Any) -> dict[str, str]:
    """Prepare what is inside an object."""
    found: dict[str, str] = {}
    for one in _inside(part):
        found |= one.prepare() if hasattr(one, "prepare") else _prepared(one)
    return found


def _inside(part: Any) -> list[Any]:
    """Return what is inside an object: its fields, or the members of a container."""
    if isinstance(part, Mapping):
        return [part[key] for key in sorted(part, key=str)]
    if isinstance(part, (list, tuple)):
        return list(part)
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return []
    # Of a linen module, not the scope that it lives in.
    fields = [f.name for f in dataclasses.fields(part) if f.name not in ("parent", "name")]
    return [getattr(part, name, None) for name in fields]


class Encoding(Objective):
    """An objective with a frontend, a tokenizer and an encoder, whose features can be read out."""

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode"."""
        return {"encode": self.encode}

    def tokenized(self, variables: Any, batch: Batch) -> Tokens:
        """Return the tokens of unmasked audio; padding is marked where the tokenizer can tell."""
        spec = self.frontend(batch["audio"], batch["length"])
        if not getattr(self.tokenizer, "takes_count", False):
            return self.tokenizer.apply(variables, spec)
        return self.tokenizer.apply(variables, spec, counted(self.frontend, spec, batch["length"]))

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode unmasked audio; `layers` of the result is filled."""
        del extra
        # A module without parameters has no entry in a checkpoint.
        weights = {name: {"params": params.get(name, {})} for name in ("tokenizer", "encoder")}
        tokens: Any = self.tokenized(weights["tokenizer"], batch)
        return self.encoder.apply(weights["encoder"], tokens, layers=True)


class Joint(Objective):
    """An objective with a tower for each modality, whose vectors lie in one space."""

    towers: dict[str, AnyObjective]
    edges: tuple

    def modalities(self) -> list[str]:
        """Return what edges may name."""
        return list(self.towers)

    def check_edges(self) -> None:
        """Raise ValueError for an edge that is not (modality, modality, weight)."""
        for edge in self.edges:
            if len(edge) != 3 or not {edge[0], edge[1]} <= set(self.modalities()):
                raise ValueError(
                    f"edges: got {edge!r}; wanted (modality, modality, weight), of the modalities "
                    f"{', '.join(self.modalities())}."
                )

    @abc.abstractmethod
    def embed(self, name: str, params: Params, batch: Batch) -> Any:
        """Return unit vectors [B, D] of a modality."""

    def scale(self, params: Params, name: str, other: str) -> float | None:
        """Return the learned factor of similarities between two modalities; None when none is learned."""
        del params, name, other
        return None

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "embed_NAME" for every modality, and "encode" for sound."""

        def predictor(name: str) -> Predictor:
            return lambda params, extra, batch: self.embed(name, params, batch)

        offers = {f"embed_{name}": predictor(name) for name in self.towers}
        return offers | ({"encode": self.encode} if "audio" in self.towers else {})

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode sound with the backbone of its tower."""
        del extra
        return self.towers["audio"].encode(params["audio"], batch, "audio")

    @property
    def _sorted(self) -> list[tuple[str, Any]]:
        # Not in the order of the config, which a round trip changes.
        return sorted(self.towers.items())
