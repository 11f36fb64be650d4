"""From a config (mutable data) to objects (frozen): `build`, plus `parse_arg` and durations.

A mapping with a `kind` becomes an instance of the class in the file of that name; every other key must
be one of its dataclass fields. There is no registry: adding a file adds a kind.
"""

import ast
import dataclasses
import difflib
import importlib
import pathlib
import re
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from ssl_audio import slots
from ssl_audio.slots import Slot

_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
LARGEST = 2**32  # of whole numbers: seeds have 32 bits, and nothing is counted beyond


def build(config: Any, slot: str | Slot, *, path: str = "") -> Any:
    """Build the object that `config` describes.

    Args:
      config: a mapping with a `kind` ("fbank", "masking:Cluster", "sets.esc" within the slot's folder, or
        "mylab.module:Class" from elsewhere) and that class's fields.
      slot: the folder of the package whose classes fit, as "objectives"; see `slots`.
      path: where it stands, for error messages.

    Raises:
      TypeError: unknown option, missing option or wrong type, with a suggestion.
      ValueError: unknown kind, with the list of those that exist.
    """
    slot = Slot(slot) if isinstance(slot, str) else slot
    path = path or f"config.{slot.folder}"
    config = plain(config)
    if not isinstance(config, Mapping) or "kind" not in config:
        raise TypeError(f"{path}: wanted a mapping with a 'kind', got {config!r}")
    cls = _find(config["kind"], slot, path)
    return make(cls, {k: v for k, v in config.items() if k != "kind"}, path=path)


def make(cls: type, options: Any, *, path: str = "config") -> Any:
    """Build dataclass `cls` from a mapping of its fields, children first."""
    options = plain(options)
    fields = {
        f.name: f for f in dataclasses.fields(cls) if f.init and f.name not in ("parent", "name")
    }
    hints = typing.get_type_hints(cls, include_extras=True)
    values = {}
    for key, value in options.items():
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise TypeError(
                f"{path}: {cls.__name__} has no option '{key}'.{hint} Options: {', '.join(fields)}."
            )
        values[key] = _value(value, hints.get(key, Any), f"{path}.{key}", fits=fields[key].default)
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise TypeError(f"{path}: {cls.__name__} needs {', '.join(missing)}.")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        if str(error).startswith("config"):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError) as error:
        # Of a check that a wrong value of another option made fail.
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


def culprit(error: BaseException) -> str:
    """Return what an object that a config built was given, if it is where an error came up; "": none.

    Sizes that do not fit are often found by a product of matrices only, which knows no options.
    """
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        one = frame.f_locals.get("self")
        mine = type(one).__module__.startswith(f"{__package__}.")
        if mine and dataclasses.is_dataclass(one) and not isinstance(one, type):
            numbers = {
                f.name: getattr(one, f.name)
                for f in dataclasses.fields(one)
                if isinstance(getattr(one, f.name, None), (int, float, str, tuple))
            }
            given = ", ".join(
                f"{k}={v!r}" for k, v in numbers.items() if k != "name" and len(repr(v)) < 40
            )
            found = f" In {type(one).__name__}({given})." if given else found
    return found


class Arguments(types.SimpleNamespace):
    """The options of a config, as attributes, and which of them were given."""

    __slots__ = ("_given",)  # no attribute among the options

    def __init__(self, given: Iterable[str] = (), **values: Any):
        super().__init__(**values)
        self._given = frozenset(given)

    def refuse(self, names: str, why: str) -> None:
        """Refuse options that have no effect here, so that nothing is ignored.

        Args:
          names: of the options, separated by blanks.
          why: as "laptop sets it".

        Raises:
          ValueError: one of them was given.
        """
        for name in names.split():
            if name in self._given:
                raise ValueError(f"config argument '{name}': it would change nothing: {why}.")


def parse_arg(arg: str | None, **defaults: Any) -> Arguments:
    """Parse the text after the colon of `--config file.py:size=tiny,masked=300`.

    A bare word switches on the boolean of that name, or else is the value of the first default. A comma
    that belongs to a value is written as "\\,".

    Raises:
      ValueError: no such option, one that is given twice, or a value of another type.
    """
    values, given = dict(defaults), list[str]()
    first = next(iter(defaults), None)
    for number, part in enumerate(filter(None, re.split(r"(?<!\\),", arg or ""))):
        part = part.replace("\\,", ",")
        key, equals, text = part.partition("=")
        if not equals:
            if isinstance(defaults.get(key), bool):
                text = "true"
            elif key in defaults or first is None or number:
                raise ValueError(f"config argument '{part}': write {key}=VALUE.")
            else:
                key, text = first, part
        if key not in defaults:
            close = difflib.get_close_matches(key, defaults, 1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ValueError(
                f"config argument '{key}': the options are {', '.join(defaults)}.{hint}"
            )
        if key in given:
            raise ValueError(f"config argument '{key}': given twice.")
        kind = type(defaults[key])
        try:
            values[key] = _SWITCH[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            wanted = "true or false" if kind is bool else kind.__name__
            raise ValueError(f"config argument '{part}': wanted {wanted}.") from None
        given.append(key)
    # A switch that is off, and would be, says what is so anyway.
    off = {key for key in given if values[key] is False and defaults[key] is False}
    return Arguments(set(given) - off, **values)


def escaped(text: str) -> str:
    """Return a value for `parse_arg` that may hold commas."""
    return text.replace(",", "\\,")


def duration(value: int | float | str, *, total: int, epoch: int | None = None) -> int:
    """Return a number of steps from 3000, "5%" (of `total`) or "10ep" (of `epoch` steps each)."""
    if isinstance(value, (int, float)):
        if not 0 <= value < LARGEST:
            raise ValueError(f"duration {value!r}: wanted 0 or more.")
        return int(value)
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(%|ep|steps?)?", value.strip())
    if not match:
        raise ValueError(f"duration {value!r}: write 3000, '5%' or '10ep'.")
    number, unit = float(match[1]), match[2]
    if unit == "%":
        return max(1, round(number / 100 * total))
    if unit == "ep":
        if not epoch:
            raise ValueError(f"duration {value!r}: the length of an epoch is not known here.")
        return max(1, round(number * epoch))
    return int(number)


# The annotation of a field that holds one: refused, with the field's name, when the config is built.
Duration = Annotated[int | float | str, duration]


def text(config: Any) -> str:
    """Return one sorted `path = value` line per leaf: readable, and easy to diff."""
    lines: list[str] = []

    def walk(value, path):
        if isinstance(value, Mapping) and value:
            for key in sorted(value):
                walk(value[key], f"{path}.{key}" if path else str(key))
        else:
            lines.append(f"{path} = {value!r}")

    walk(plain(config), "")
    return "\n".join(lines) + "\n"


def plain(config: Any) -> Any:
    """Return ConfigDicts as plain dicts (references resolved) and lists as tuples."""
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {k: v if type(v) in _LEAVES else plain(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return tuple(v if type(v) in _LEAVES else plain(v) for v in config)
    return config


def _value(value: Any, hint: Any, path: str, *, fits: Any = dataclasses.MISSING) -> Any:
    """Return a value of a config as its field's annotation wants it; `fits`: the field's default."""
    if duration in getattr(hint, "__metadata__", ()):
        return _duration(value, path)
    slot = slots.of(hint)
    if isinstance(value, Mapping):
        if "kind" in value:
            if slot is None:
                raise TypeError(f"{path}: nothing with a 'kind' belongs here.")
            return build(value, slot, path=path)
        entries = _arguments(hint, dict)
        if entries:
            inner = entries[1]
            for key, entry in value.items():
                if dataclasses.is_dataclass(inner) and not isinstance(entry, Mapping):
                    raise TypeError(
                        f"{path}.{key}: wanted a mapping, got {entry!r}; the options of "
                        f"{getattr(inner, '__name__', inner)} stand under a name of your choice: "
                        f"{path}.NAME.{key}."
                    )
            return {k: _value(v, inner, f"{path}.{k}") for k, v in value.items()}
        cls = next((h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)), None)
        if isinstance(cls, type):
            return make(cls, value, path=path)
        if slot is not None:
            raise TypeError(f"{path}: wanted a mapping with a 'kind', got {value!r}.")
        return {k: _value(v, hint, f"{path}.{k}") for k, v in value.items()}
    if value is None and value is fits:
        return value
    if isinstance(value, tuple):
        return _several(value, hint, path)
    value = _number(value, hint, path) if type(value) in (int, float) else value
    allowed = _alternatives(hint)
    leaves = [h for h in allowed if h in _LEAVES]
    if type(value) in _LEAVES and type(value) not in leaves:
        # A ratio may stand for a perceptron: `mlp: Layer = 4.0`.
        if slot is not None and type(fits) in (int, float) and type(value) in (int, float):
            return value
        if slot is not None and (value is not None or fits is dataclasses.MISSING):
            raise TypeError(f"{path}: wanted a mapping with a 'kind', got {value!r}.")
        if len(leaves) == len(allowed):
            wanted = " or ".join(h.__name__ for h in allowed)
            raise TypeError(f"{path}: wanted {wanted}, got {value!r}.")
        if isinstance(value, str) and _arguments(hint, tuple):
            raise TypeError(f"{path}: wanted a list, got {value!r}.")
    return value


def _duration(value: Any, path: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{path}: wanted a duration, as 3000, '5%' or '10ep', got {value!r}.")
    try:
        duration(value, total=1, epoch=1)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return value


_LEAVES = (bool, int, float, str, type(None))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def _arguments(hint: Any, container: type) -> tuple[Any, ...]:
    """Return what stands in the brackets of a dict or tuple in an annotation; (): there is none."""
    origins = (dict, Mapping) if container is dict else (container,)
    for part in _alternatives(hint):
        if typing.get_origin(part) in origins:
            return typing.get_args(part)
    return ()


def _several(values: tuple[Any, ...], hint: Any, path: str) -> tuple[Any, ...]:
    """Return the parts of a tuple, each as its annotation wants it."""
    inner = _arguments(hint, tuple)
    if all(h in _LEAVES for h in _alternatives(hint)):
        wanted = " or ".join(h.__name__ for h in _alternatives(hint))
        raise TypeError(f"{path}: wanted {wanted}, got {values!r}.")
    if inner[1:] == (...,):
        inner = inner[:1] * len(values)
    elif inner and len(inner) != len(values):
        raise TypeError(f"{path}: wanted {len(inner)} values, got {values!r}.")
    hints = inner or (hint,) * len(values)
    return tuple(
        _value(v, h, f"{path}[{i}]") for i, (v, h) in enumerate(zip(values, hints, strict=True))
    )


def _number(value: Any, hint: Any, path: str) -> Any:
    """Return a leaf; a whole number for a field of real ones becomes one.

    Raises:
      ValueError: it is not a number, or larger than any option can mean.
    """
    allowed = _alternatives(hint)
    if type(value) is int and float in allowed and int not in allowed and abs(value) < LARGEST:
        return float(value)
    if type(value) is int and abs(value) >= LARGEST:
        digits = str(value) if abs(value) < 10**20 else "more"
        raise ValueError(f"{path}: got {digits}, wanted a number below 2^32.")
    if type(value) is float and value != value:
        raise ValueError(f"{path}: got NaN, wanted a number.")
    return value


def _find(kind: Any, slot: Slot, path: str) -> type:
    """Return the class that a kind names: of the slot's folder, or "module:Class" of another package.

    Only a class that the module defines counts, so that what it imports cannot be named through it.
    """
    slots.check_form(kind, path)
    file, _, name = kind.partition(":")
    owner = slots.package(kind)
    module_name = f"{__package__}.{slot.folder}.{file}"
    if not slots.is_file(module_name):
        own = owner == __package__
        known = slots.is_file(file) if own else owner not in sys.stdlib_module_names
        if not name or not known:
            raise ValueError(f"{path}.kind: no '{kind}' here.{_listed(kind, slot)}")
        module_name = file
    name = name or _class_name(file)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the file exists; something it imports does not
        raise ValueError(f"{path}.kind: no '{kind}' here.{_listed(kind, slot)}") from None
    found = getattr(module, name, None)
    if not (
        isinstance(found, type) and dataclasses.is_dataclass(found) and _defines(module_name, found)
    ):
        raise ValueError(f"{path}.kind: {module_name} has no class '{name}'.{_listed(kind, slot)}")
    return found


def _defines(module_name: str, found: type) -> bool:
    """Tell whether a class is a module's own; of another package: that package's."""
    if module_name.startswith(f"{__package__}."):
        return found.__module__ == module_name
    return found.__module__.partition(".")[0] == module_name.partition(".")[0]


def _class_name(file: str) -> str:
    return "".join(word.capitalize() for word in file.rpartition(".")[2].split("_"))


def _listed(kind: str, slot: Slot) -> str:
    """Return a suggestion and the kinds that a slot's folder has, read without importing its files."""
    folder = pathlib.Path(importlib.import_module(f"{__package__}.{slot.folder}").__path__[0])
    known = []
    for path in sorted(folder.rglob("*.py")):
        file = ".".join(path.relative_to(folder).with_suffix("").parts)
        if path.stem.startswith("_"):
            continue
        if slot.files and not {file, file.partition(".")[0]} & set(slot.files):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and _can_fill(node):
                own = node.name == _class_name(file)
                known.append(file if own else f"{file}:{node.name}")
    close = difflib.get_close_matches(kind, known, 1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} There are {', '.join(known)}; or write module:Class of a package of your own."


def _can_fill(node: ast.ClassDef) -> bool:
    """Tell whether a class is a dataclass or a module of Flax, and can be built."""
    marks = [ast.unparse(mark) for mark in (*node.decorator_list, *node.bases)]
    return any("dataclass" in m or m == "nn.Module" for m in marks) and not any(
        m in ("abc.ABC", "Protocol") for m in marks
    )
