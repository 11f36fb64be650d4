"""What may fill a field of a config: annotations that name a folder of this package.

A field `mixer: Layer` takes `dict(kind="mamba", …)`: class `Mamba` of `layers/mamba.py`. A field annotated
with a class of this package takes the classes of that class's folder. The names of fields mean nothing.
"""

import dataclasses
import types
import typing
from typing import Annotated, Any


@dataclasses.dataclass(frozen=True)
class Slot:
    """A folder of `ssl_audio`.

    Attributes:
      folder: whose classes fit.
      files: those of its files (or folders) that an error lists; none: all.
    """

    folder: str
    files: tuple[str, ...] = ()


AnyObjective = Annotated[Any, Slot("objectives")]
AnyFrontend = Annotated[Any, Slot("frontend")]
Augment = Annotated[Any, Slot("frontend", ("augment", "corrupt", "waves"))]
Layer = Annotated[Any, Slot("layers")]
Norm = Annotated[Any, Slot("layers", ("norms",))]
Quantizer = Annotated[Any, Slot("quantizers")]
Tokenizer = Annotated[Any, Slot("tokens")]
Positions = Annotated[Any, Slot("tokens", ("positions", "convolutions"))]
Masking = Annotated[Any, Slot("tokens", ("masking",))]
Head = Annotated[Any, Slot("heads")]
Pool = Annotated[Any, Slot("heads", ("pools", "probes"))]
Projector = Annotated[Any, Slot("heads", ("projectors", "distill"))]
Backbone = Annotated[Any, Slot("backbones")]
Data = Annotated[Any, Slot("data", ("pipeline",))]
AnySource = Annotated[Any, Slot("data", ("source", "synthetic", "shards", "sets", "tfds"))]
Compose = Annotated[Any, Slot("data", ("compose",))]
Evaluator = Annotated[Any, Slot("eval")]


def of(hint: Any) -> Slot | None:
    """Return the slot that a field's annotation names, through `| None` and containers; None: none."""
    for found in getattr(hint, "__metadata__", ()):
        if isinstance(found, Slot):
            return found
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        package, _, rest = hint.__module__.partition(".")
        folder, _, file = rest.partition(".")
        files = () if file in ("", "base") else (file,)
        return Slot(folder, files) if package == __package__ and file else None
    return next(filter(None, map(of, typing.get_args(hint))), None)
