"""Config files: `--config` on the command line, and the configs of this package (`ssl-audio configs`).

`ssamba` is a config of the package, `my/ssamba.py` a file; options follow a colon.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import os
import pathlib
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ssl_audio import config, slots, startup


def folder() -> pathlib.Path:
    """Return where the package's configs lie: in the package, or in a checkout beside it."""
    package = pathlib.Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@functools.cache
def packaged() -> dict[str, pathlib.Path]:
    """Return name → file of the configs that come with the package."""
    return {path.stem: path for path in sorted(folder().glob("*.py"))}


def locate(place: str) -> pathlib.Path:
    """Return the file of a config: that of the package with this name, or else the one at this path.

    Raises:
      ValueError: neither exists; with the names and the nearest one.
    """
    if found := packaged().get(place):
        return found
    path = pathlib.Path(place)
    if path.is_file():
        return path
    close = difflib.get_close_matches(path.stem, packaged(), 1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(
        f"no file {place}, nor a config of this name.{hint} Configs: {', '.join(packaged())}"
    )


def summary(path: pathlib.Path) -> str:
    """Return the first line of a config's docstring; nothing is imported."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return text.splitlines()[0] if text else ""


@functools.cache
def listing() -> str:
    """Return the package's configs, a line each."""
    wide = max(map(len, packaged()), default=0)
    return "\n".join(f"  {name:{wide}}  {summary(path)}" for name, path in packaged().items())


def with_config(verb: str, doc: str | None, *, workdir: bool = False) -> argparse.ArgumentParser:
    """Return the parser of a verb that takes a config, and `--workdir` if it writes a run."""
    made = startup.parser(verb, doc)
    made.epilog = f"configs (`ssl-audio configs copy NAME FILE` for one to change):\n{listing()}"
    metavar = "NAME|FILE[:ARG,…]"
    made.add_argument("--config", required=True, metavar=metavar, help="a name below, or a file")
    made.add_argument(
        "--config.PATH", metavar="VALUE", help="override one option, as --config.optim.lr=1e-3"
    )
    startup.add_trust(made)
    if workdir:
        made.add_argument("--workdir", required=True, help="where the run keeps all it writes")
    return made


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None, *, argument: str = ""
) -> tuple[argparse.Namespace, Any]:
    """Parse a command line with a config; return its options and the config, overrides applied.

    Args:
      parser: see `with_config`.
      argv: default: that of the program.
      argument: put behind the config's own.

    Raises:
      SystemExit: on --help, and on a wrong command line, with a message.
    """
    argv = sys.argv[1:] if argv is None else argv
    overrides = [a for a in argv if a.startswith(("--config.", "--noconfig."))]
    args = parser.parse_args([a for a in argv if a not in overrides])
    try:
        with slots.trusting(args.trust):  # of folders that the config names
            return args, load(args.config, overrides, argument=argument)
    except ValueError as error:
        parser.error(f"--config: {error}")


def parse_for(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, name: str, arguments: Sequence[str]
) -> tuple[argparse.Namespace, Any]:
    """Parse the command line of a verb with a config of its own; return its options and the config.

    Args:
      parser: whose options of the names of `arguments` become arguments of the config.
      argv: default: that of the program.
      name: of the config.
      arguments: of the config, left out where not given.

    Raises:
      SystemExit: on --help, and on a wrong command line, with a message.
    """
    argv = sys.argv[1:] if argv is None else argv
    overrides = [a for a in argv if a.startswith(("--config.", "--noconfig."))]
    args = parser.parse_args([a for a in argv if a not in overrides])
    given = [(key, getattr(args, key)) for key in arguments]
    text = ",".join(f"{key}={config.escaped(str(v))}" for key, v in given if v is not None)
    try:
        with slots.trusting(args.trust):
            return args, load(f"{name}:{text}", overrides)
    except ValueError as error:
        parser.error(str(error))


def load(place: str, overrides: Sequence[str] = (), *, argument: str = "") -> Any:
    """Return the config that "NAME:ARG" or "FILE:ARG" describes.

    Args:
      place: see `locate`.
      overrides: as on the command line, `--config.optim.lr=1e-3`.
      argument: put behind the config's own.

    Raises:
      ValueError: no such config, or it does not take what it was given.
    """
    from absl import flags
    from ml_collections import ConfigDict, config_flags

    name, _, given = place.partition(":")
    given = ",".join(filter(None, (given, argument)))
    # An option that the config leaves at its default can be overridden too, and a mapping may get one more
    # entry; `make` refuses those that do not exist, with a suggestion.
    anew: Any = dict(lock_config=False, accept_new_attributes=True)
    # Flags of our own, not absl's global ones: a program may call this twice.
    first, values = flags.FlagValues(), flags.FlagValues()
    path = locate(name)
    warm = _warm_start(path, given, overrides)
    if warm:
        given = ",".join(filter(None, (given, f"pretrained={config.escaped(warm[1])}")))
    file, line = [f"--config={path}:{given}"], ["", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=first, sys_argv=file, **anew)
    try:
        with naming(path), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "the load_module", DeprecationWarning
            )  # ml_collections'
            first(["", *file])
        made: Any = first["config"].value
        # ml_collections keeps those of reading a file for later.
        error = getattr(made, "__dict__", {}).get("_error")
        if isinstance(error, OSError):
            raise ValueError(str(error)) from error
        if not isinstance(made, ConfigDict):
            got = f"its get_config gives {type(made).__name__}" if made is not None else "no config"
            raise ValueError(
                f"{path}: {got}, wanted a function get_config that returns a ConfigDict"
            )
        _to_tuples(made)
        if warm:
            with made.unlocked():
                (start,) = config.plain(made)["warm_start"].values()
                made.warm_start = {warm[0]: start}
        for override in overrides:
            _make_room(made, override.partition("=")[0].split(".")[1:-1])
        config_flags.DEFINE_config_dict("config", made, flag_values=values, sys_argv=line, **anew)
        values(line)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        message = str(error)
        if found := _WHOLE.search(message):
            place, value = found.groups()
            message = (
                f"{place}: got {value!r}, wanted options of its own: write {place}.OPTION=VALUE"
            )
        if isinstance(error, KeyError):
            message = _unknown(str(error.args[0]), name, given)
        if "Traceback" in message and not os.environ.get("SSL_AUDIO_TRACEBACK"):
            message = message.strip().splitlines()[-1].removeprefix("ValueError: ")
        raise ValueError(message) from error
    return values["config"].value


_WARM = re.compile(r"--config\.warm_start\.(\w+)\.path=(.+)")


def _warm_start(path: pathlib.Path, given: str, overrides: Sequence[str]) -> tuple[str, str] | None:
    """Return name and path of a warm start whose architecture the config takes over; None: there is none.

    That is one which is given as an override, takes the usual parameters and goes to a config that has an
    argument `pretrained`: the same as that argument.
    """
    found = [match for text in overrides if (match := _WARM.fullmatch(text))]
    if len(found) != 1 or re.search(r"(^|,)pretrained=", given):
        return None
    name = found[0][1]
    others = [text for text in overrides if text.startswith(f"--config.warm_start.{name}.")]
    calls = (
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "parse_arg"
    )  # fmt: skip
    takes = any(key.arg == "pretrained" for call in calls for key in call.keywords)
    return (name, found[0][2]) if takes and len(others) == 1 else None


# What ml_collections says of a text in the place of a mapping.
_WHOLE = re.compile(r"flag (--[^ =]+)=.*Failed to parse '(.*?)' as a ConfigDict")


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Name the file in what goes wrong in the code of a config, apart from what `load` knows to say."""
    try:
        yield
    except SystemExit as error:
        raise ValueError(f"{path}: its code ends the program ({error.code})") from error
    except (
        SyntaxError, NameError, ArithmeticError, AttributeError, ImportError, IndexError, OSError, TypeError
    ) as error:  # fmt: skip
        if os.environ.get("SSL_AUDIO_TRACEBACK"):
            raise
        raise ValueError(f"{path}: {_line(error, path)}{type(error).__name__}: {error}") from error


def _line(error: BaseException, path: pathlib.Path) -> str:
    """Return in which line of a file an error arose, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename.endswith(path.name)]
    return f"line {lines[-1]}: " if lines and not isinstance(error, SyntaxError) else ""


# Options of a run that a config may leave out, and an override bring in.
ADDED = ("checkpoint", "evals", "record", "sharding", "warm_start")


def _unknown(key: str, name: str, given: str) -> str:
    """Return the message about a key that a config's own code did not find."""
    parts = [part for part in given.split(",") if key in (part, part.partition("=")[2])]
    if parts:
        return f"config argument '{parts[0]}': {name} has nothing of the name {key!r}."
    return f"{name}: its get_config found no {key!r}."


def _to_tuples(found: Any) -> None:
    """Make lists tuples, which can be overridden; a list comes out of the config.json of a run."""
    for key, value in list(found.items()):
        if hasattr(value, "items"):
            _to_tuples(value)
        elif isinstance(value, list):
            with found.unlocked():
                del found[key]  # or else the tuple would become a list again
                found[key] = config.plain(value)


def _make_room(found: Any, parents: Sequence[str]) -> None:
    """Create the mappings on the way to an option that do not exist yet, inside one that does."""
    from ml_collections import ConfigDict

    for name in parents[:1]:
        if name not in found and name not in ADDED:
            close = difflib.get_close_matches(name, found, 1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            place = ".".join(["--config", *parents])
            raise ValueError(
                f"{place}: the config has no {name!r}.{hint} It has {', '.join(found)}."
            )
    for name in parents:
        if not isinstance(found, ConfigDict) or "[" in name:
            return
        if name not in found:
            found[name] = ConfigDict()
        found = found[name]


ABOUT = """List the configs of this package; show one with all its options; copy one to change it.

ssl-audio configs
ssl-audio configs show ssamba:size=tiny
ssl-audio configs copy ssamba my.py     # then --config my.py
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio configs`."""
    made = startup.parser("configs", ABOUT)
    verbs = made.add_subparsers(dest="verb", metavar="{show,copy}")
    show = verbs.add_parser("show", help="print the resolved options")
    show.add_argument("config", metavar="NAME|FILE[:ARG,…]")
    startup.add_trust(show)
    copy = verbs.add_parser("copy", help="write a copy to change")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("file", metavar="FILE", help="a new file")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line; list, show or copy.

    Raises:
      ValueError: no such config.
      FileExistsError: the copy would overwrite a file.
    """
    args = parser().parse_args(argv)
    if args.verb == "show":
        with slots.trusting(args.trust):
            print(config.text(load(args.config)), end="")
    elif args.verb == "copy":
        text = locate(args.name).read_text(encoding="utf-8")
        try:
            with open(args.file, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise FileExistsError(f"{args.file} exists already; name a new file.") from None
        print(f"{args.file}: a copy of {args.name}; use it as --config {args.file}")
    else:
        print(listing())
