"""What may fill a field of a config: annotations that name a folder of this package; whose code it may be.

A field `mixer: Layer` takes `dict(kind="mamba", …)`: class `Mamba` of `layers/mamba.py`. A field annotated
with a class of this package takes the classes of that class's folder. The names of fields mean nothing.
"""

import contextlib
import contextvars
import dataclasses
import functools
import pathlib
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

PACKAGE = "ssl_audio"
LONGEST = 200  # letters of a kind
_KIND = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?", re.ASCII)
_trusted: contextvars.ContextVar[frozenset[str]] = contextvars.ContextVar(
    "trusted", default=frozenset()
)


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
Augment = Annotated[Any, Slot("frontend", ("augment", "corrupt", "waves", "mixed_crops"))]
Layer = Annotated[Any, Slot("layers")]
Adapter = Annotated[Any, Slot("layers", ("lora",))]
Norm = Annotated[Any, Slot("layers", ("norms",))]
Quantizer = Annotated[Any, Slot("quantizers")]
Tokenizer = Annotated[Any, Slot("tokens")]
Positions = Annotated[Any, Slot("tokens", ("positions", "convolutions"))]
Masking = Annotated[Any, Slot("tokens", ("masking", "misread"))]
Head = Annotated[Any, Slot("heads")]
Pool = Annotated[Any, Slot("heads", ("pools", "probes"))]
Projector = Annotated[Any, Slot("heads", ("projectors", "distill"))]
Backbone = Annotated[Any, Slot("backbones")]
Data = Annotated[Any, Slot("data", ("pipeline",))]
AnySource = Annotated[
    Any,
    Slot(
        "data",
        (
            "source",
            "labelled",
            "few_labels",
            "synthetic",
            "shards",
            "arrow",
            "webdataset",
            "sets",
            "tfds",
            "pictures",
            "sequence_examples",
            "sequences",
            "pixels",
        ),
    ),
]
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


def check_form(kind: Any, path: str) -> None:
    """Raise TypeError or ValueError, naming the option, unless this can be the name of a class."""
    if not isinstance(kind, str):
        got = reprlib.repr(kind)
        raise TypeError(f"{path}.kind: got {got}, wanted the name of a class, as 'fbank'.")
    if len(kind) > LONGEST or not _KIND.fullmatch(kind):
        got = repr(kind) if len(kind) <= LONGEST else f"{kind[:60]!r}… ({len(kind)} letters)"
        raise ValueError(
            f"{path}.kind: got {got}, wanted the name of a class: 'fbank' or 'norms:LayerNorm'."
        )


def package(kind: str) -> str:
    """Return the top-level package that a kind imports, whatever the slot.

    A bare kind, and one that begins with the name of a file in any slot's folder, is ours: where the slot
    at hand has no such file it is unknown, and never looked for elsewhere.
    """
    file, _, name = kind.partition(":")
    first = file.partition(".")[0]
    return first if name and first not in _names() else PACKAGE


@functools.cache
def _names() -> frozenset[str]:
    """Return with what a kind of this package can begin."""
    slotted = {mark.folder for mark in map(of, list(globals().values())) if mark}
    # `optim` is annotated with a class, and takes those of its folder: "sgd:Sgd".
    folders = [pathlib.Path(__file__).with_name(folder) for folder in slotted | {"train"}]
    files = {path.stem for folder in folders for path in folder.glob("*.py")}
    inner = {path.parent.name for folder in folders for path in folder.glob("*/__init__.py")}
    return frozenset({PACKAGE} | inner | files - {"__init__"})


def is_file(module_name: str) -> bool:
    """Tell whether a dotted name is that of a file of this package that holds classes."""
    own, *parts = module_name.split(".")
    place = pathlib.Path(__file__).parent.joinpath(*parts)
    hidden = any(part.startswith("_") for part in parts)
    return own == PACKAGE and not hidden and place.with_name(f"{place.name}.py").is_file()


@contextlib.contextmanager
def trusting(packages: Iterable[str]) -> Iterator[None]:
    """Let the config of a folder name classes of these packages too, while the body runs.

    Raises:
      ValueError: not the name of a top-level package.
    """
    some = [packages] if isinstance(packages, str) else list(packages)
    for name in some:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"trust: got {name!r}, wanted the name of a package, as 'mylab'.")
    before = _trusted.set(_trusted.get() | set(some))
    try:
        yield
    finally:
        _trusted.reset(before)


def trusted() -> frozenset[str]:
    """Return the packages that a folder's config may name here, beside ours."""
    return _trusted.get()


def packages(config: Any) -> frozenset[str]:
    """Return the packages of others that a config names."""
    return frozenset(package(kind) for _, kind in _kinds(config, "")) - {PACKAGE}


def check_trusted(config: Any, where: str) -> None:
    """Refuse a config that comes out of a folder unless all its kinds are ours or `trusted`.

    Nothing is imported. `storage/written.py`, the only reader of config.json, calls this.

    Args:
      config: a mapping.
      where: it comes from, for the message.

    Raises:
      TypeError, ValueError: a kind is not the name of a class, or not to be trusted.
    """
    for path, kind in _kinds(config, "config"):
        path = path if path.isprintable() and len(path) <= 400 else f"{path[:400]!r}…"
        owner = package(kind) if isinstance(kind, str) else ""
        try:
            check_form(kind, path)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        if owner != PACKAGE and owner not in trusted():
            raise ValueError(
                f"{where}: {path}.kind: got {kind!r}, wanted a class of {PACKAGE}: a folder's config "
                f"imports nothing else. If you trust the code of {owner!r}: --trust {owner}, or "
                f"ssl_audio.load(…, trust=[{owner!r}])."
            )


def _kinds(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (where, kind) of everything in a config that would be built."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        if "kind" in value:
            yield path, value["kind"]
        for key, entry in value.items():
            yield from _kinds(entry, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, entry in enumerate(value):
            yield from _kinds(entry, f"{path}[{i}]")
