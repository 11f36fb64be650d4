"""What converters share: taking arrays out of a state dict, and the model that comes out."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ssl_audio import config as configs
from ssl_audio.distributed.sharding import path_name
from ssl_audio.frontend.fbank import Fbank

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Converted:
    """A converted model.

    Attributes:
      config: the resolved config; `ssl_audio.config.build` takes its `objective`.
      params: its parameters, numpy arrays.
      outputs: (params, **inputs) → dict of arrays, traceable.
      unused: arrays of the state dict that the model does without, kept for the way back.
      left: names of those that belong to a head without a place here.
    """

    config: dict[str, Any]
    params: dict[str, Any]
    outputs: Callable[..., Mapping[str, Any]]
    unused: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    left: tuple[str, ...] = ()

    def forward(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Run the model at full float32 precision, under the reference's names for in- and outputs."""
        with jax.default_matmul_precision("highest"):
            found = jax.jit(self.outputs)(self.params, **inputs)
        return {name: np.asarray(value) for name, value in found.items()}


class UnknownHead(ValueError):
    """A state dict has all that a model needs, and beside it modules that the model has no place for.

    Attributes:
      names: of their arrays.
    """

    def __init__(self, message: str, names: list[str]):
        super().__init__(message)
        self.names = names


def fill(
    shapes: Any, write: Callable[[Any], State], state: State, *, unused: tuple[str, ...] = ()
) -> tuple[Any, dict[str, np.ndarray]]:
    """Fill a tree of shapes with the arrays of a state dict: the inverse of `write`.

    A conversion only moves elements. So numbers go through `write` in the place of parameters, and
    say where each element belongs; the inverse cannot disagree with it.

    Args:
      shapes: our parameters, as anything with a shape.
      write: our parameters → state dict.
      state: reference name → array.
      unused: prefixes of names that need no place.

    Returns:
      Our parameters, float32, and the arrays that found no place.

    Raises:
      UnknownHead: the only keys that nothing wants belong to modules that nothing here is part of.
      ValueError: keys are missing, not wanted by anything, or of another shape; all are listed.
    """
    leaves, tree = jax.tree.flatten(shapes)
    ends = np.cumsum([0, *(math.prod(leaf.shape) for leaf in leaves)])
    number = np.int32 if ends[-1] < 2**31 else np.int64
    spans = list(zip(ends[:-1], ends[1:], leaves, strict=True))
    numbers = [np.arange(a, b, dtype=number).reshape(leaf.shape) for a, b, leaf in spans]
    places = write(jax.tree.unflatten(tree, numbers))
    left = {name: value for name, value in state.items() if name not in places}
    check_keys(
        missing=[name for name in places if name not in state],
        left=[name for name in left if not name.startswith(unused)],
        differ=[
            f"{name} {state[name].shape}, wanted {place.shape}"
            for name, place in places.items()
            if name in state and state[name].shape != place.shape
        ],
        wanted=places,
    )
    flat = np.empty(ends[-1], np.float32)
    for name, place in places.items():
        flat[place] = state[name]
    return tree.unflatten([flat[a:b].reshape(leaf.shape) for a, b, leaf in spans]), left


def nameless(params: Any, write: Callable[[Any], State]) -> list[str]:
    """Return the paths of our parameters of which some element has no place in what `write` returns.

    Position tables are passed over: `write` may bring them to another grid, which mixes their elements.
    """
    named, tree = jax.tree_util.tree_flatten_with_path(params)
    ends = np.cumsum([0, *(leaf.size for _, leaf in named)])
    numbers = [
        np.arange(a, b, dtype=np.float64).reshape(leaf.shape)
        for a, b, (_, leaf) in zip(ends[:-1], ends[1:], named, strict=True)
    ]
    found = np.zeros(ends[-1], bool)
    for place in write(jax.tree.unflatten(tree, numbers)).values():
        flat = np.asarray(place, np.float64).ravel()
        flat = flat[(flat >= 0) & (flat < ends[-1]) & (flat == np.floor(flat))]
        found[flat.astype(np.int64)] = True
    return [
        path_name(path)
        for a, b, (path, _) in zip(ends[:-1], ends[1:], named, strict=True)
        if not found[a:b].all() and "positions" not in path_name(path).split("/")
    ]


def build(
    config: dict[str, Any],
    write: Callable[[Any], State],
    state: State,
    *,
    unused: tuple[str, ...] = (),
    blank: Mapping[str, Any] | None = None,
) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Return a config's objective, its parameters from a state dict, and the arrays left over.

    Args:
      config: of the model.
      write: our parameters → state dict.
      state: reference name → array.
      unused: prefixes of names that need no place.
      blank: a batch of one to find the parameters' shapes with; None: a silent clip. A config without
        data gets its shapes as `inputs`, for `load` to check parameters.

    Raises:
      ValueError: see `fill`.
    """
    if blank and "data" not in config:
        config["inputs"] = {n: [list(x.shape), np.dtype(x.dtype).name] for n, x in blank.items()}
    objective, params, _, left = build_pair(config, write, state, {}, unused=unused, blank=blank)
    return objective, params, left


def build_pair(
    config: dict[str, Any],
    write: Callable[[Any], State],
    student: State,
    teacher: State,
    *,
    unused: tuple[str, ...] = (),
    blank: Mapping[str, Any] | None = None,
) -> tuple[Any, Any, Any, dict[str, np.ndarray]]:
    """Return as `build`, before the arrays left over also the teacher's parameters; None: no teacher.

    A teacher's arrays count as left over, under `teacher.`, for a model's parameters are the student's.

    Raises:
      ValueError: see `fill`.
    """
    objective = configs.build(config["objective"], "objectives")
    blank = blank or {
        "audio": jax.ShapeDtypeStruct(
            (1, config["data"]["entries"]["audio"]["samples"]), np.float32
        ),
        "length": jax.ShapeDtypeStruct((1,), np.int32),
    }
    shapes, extra = jax.eval_shape(objective.init, jax.random.key(0), blank)
    params, left = fill(shapes, write, student, unused=unused)
    taught = fill(extra["teacher"], write, teacher, unused=unused)[0] if teacher else None
    left |= {f"teacher.{name}": value for name, value in teacher.items()}
    return objective, params, taught, left


def samples(frames: int) -> int:
    """Return the number of samples that give this number of frames."""
    return Fbank.window + (frames - 1) * Fbank.hop


def check_keys(
    *,
    missing: Iterable[str],
    left: Iterable[str],
    differ: Iterable[str] = (),
    wanted: Iterable[str] = (),
) -> None:
    """Raise ValueError, listing all, if there is any key at fault.

    `UnknownHead` where the only ones are in other modules than those of the keys `wanted`.
    """
    if any((missing := list(missing), left := list(left), differ := list(differ))):
        shapes = f"; other shapes: {', '.join(differ)}" if differ else ""
        message = (
            f"state dict: missing keys: {', '.join(missing) or 'none'}; "
            f"unexpected keys: {', '.join(left) or 'none'}{shapes}."
        )
        inside = {name.partition(".")[0] for name in wanted}
        outside = [name for name in left if name.partition(".")[0] not in inside]
        if inside and outside == left and not missing and not differ:
            raise UnknownHead(message, left)
        raise ValueError(message)


def need(state: State, *names: str, rank: int | None = None) -> list[np.ndarray]:
    """Return the arrays that a conversion begins with.

    Args:
      state: reference name → array.
      names: of the arrays.
      rank: how many axes each has, none of them empty; None: not checked.

    Raises:
      ValueError: some are not there, most likely a checkpoint of another model, or have other axes.
    """
    if missing := [name for name in names if name not in state]:
        some = list(state)
        have = ", ".join(some[:5]) + (f" and {len(some) - 5} more" if len(some) > 5 else "")
        raise ValueError(
            f"state dict: missing keys: {', '.join(missing)}; it has {have or 'none'}. "
            "Is it a checkpoint of another model?"
        )
    found = [state[name] for name in names]
    if rank is not None:
        differ = [
            f"{name} {np.shape(array)}"
            for name, array in zip(names, found, strict=True)
            if np.ndim(array) != rank or not np.size(array)
        ]
        if differ:
            raise ValueError(
                f"state dict: got the shapes {', '.join(differ)}; wanted {rank} axes, none of them empty."
            )
    return found


def strides(state: State, *names: str) -> tuple[int, ...]:
    """Return the strides of a codec's convolutions [A, B, K], half of their taps.

    Raises:
      ValueError: arrays that are missing, or are no such convolutions.
    """
    kernels = need(state, *names, rank=3)
    if odd := [
        f"{name} {kernel.shape}"
        for name, kernel in zip(names, kernels, strict=True)
        if kernel.shape[2] % 2
    ]:
        raise ValueError(
            f"state dict: got the shapes {', '.join(odd)}; wanted an even last axis: twice the stride."
        )
    return tuple(kernel.shape[2] // 2 for kernel in kernels)


def count(state: State, prefix: str) -> int:
    """Return the number of layers whose names start so.

    Raises:
      ValueError: there is none.
    """
    numbers = {name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)}
    numbers = {int(n) for n in numbers if n.isdigit()}
    if not numbers:
        need(state, f"{prefix}0.…")
    return 1 + max(numbers)


def dense(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a Dense layer under a Linear's names."""
    found = {f"{name}.weight": params["kernel"].T}
    return found | ({f"{name}.bias": params["bias"]} if "bias" in params else {})


def norm(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a norm under the reference's names."""
    found = {f"{name}.weight": params["scale"]}
    return found | ({f"{name}.bias": params["bias"]} if "bias" in params else {})


def stored_norm(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a `FrozenBatchNorm` under a BatchNorm's names."""
    statistics = {f"{name}.running_mean": params["mean"], f"{name}.running_var": params["var"]}
    return norm(name, params) | statistics


def attention(names: Mapping[str, str], params: Any) -> dict[str, np.ndarray]:
    """Return attention's fused projections under the names of Linears: keys q, k, v and out."""
    thirds = zip(*(np.split(v, 3, axis=-1) for v in params["qkv"].values()), strict=True)
    state = dense(names["out"], params["out"])
    for name, third in zip("qkv", thirds, strict=True):
        state |= dense(names[name], dict(zip(params["qkv"], third, strict=True)))
    return state


def conv(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a convolution over time under a Conv1d's names."""
    found = {f"{name}.weight": params["kernel"].transpose(2, 1, 0)}
    return found | ({f"{name}.bias": params["bias"]} if "bias" in params else {})


def image_conv(name: str, params: Any) -> dict[str, np.ndarray]:
    """Return a convolution over frequency and time under a Conv2d's names, of the same order of axes."""
    found = {f"{name}.weight": params["kernel"].transpose(3, 2, 0, 1)}
    return found | ({f"{name}.bias": params["bias"]} if "bias" in params else {})


WEIGHT_NORM = {  # gain and direction: since torch 2, and before
    "new": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    "old": ("weight_g", "weight_v"),
}


def weight_norm(state: State, prefix: str) -> str:
    """Return which names a convolution with weight normalisation has: a key of WEIGHT_NORM."""
    return "old" if f"{prefix}.weight_g" in state else "new"


def position_conv(prefix: str, params: Any, style: str) -> dict[str, np.ndarray]:
    """Return a `Convolution` of positions under a Conv1d's names."""
    gain, direction = WEIGHT_NORM[style]
    return {
        f"{prefix}.{gain}": params["gain"][None, None],
        f"{prefix}.{direction}": params["kernel"].transpose(2, 1, 0),
        f"{prefix}.bias": params["bias"],
    }


def check_groups(option: str, groups: int, kernel: np.ndarray, name: str) -> None:
    """Raise ValueError unless a Conv1d's kernel has the number of groups that an option gives."""
    if kernel.shape[0] != kernel.shape[1] * groups:
        raise ValueError(
            f"option {option}={groups}: the state dict says {kernel.shape[0] // kernel.shape[1]} "
            f"({name} {kernel.shape})."
        )


def unstacked(layers: Any) -> list[Any]:
    """Return the parameters of each layer of a tree whose first axis is the layers'."""
    depth = len(jax.tree.leaves(layers)[0])
    return [jax.tree.map(lambda v, i=i: v[i], layers) for i in range(depth)]


def stacked(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the parameters of all layers along a new first axis."""
    first = layers[0]
    return {
        k: stacked([layer[k] for layer in layers])
        if isinstance(v, dict)
        else np.stack([layer[k] for layer in layers])
        for k, v in first.items()
    }


def plain_names(state: State) -> dict[str, np.ndarray]:
    """Return a state dict without the prefixes of data-parallel checkpoints and of golden files."""
    return {
        name.removeprefix("param/").removeprefix("module."): np.asarray(value)
        for name, value in state.items()
    }
