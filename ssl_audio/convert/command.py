"""Convert a checkpoint: ssl-audio convert --from ssast --checkpoint F.pth --out DIR

Then `ssl_audio.load(DIR)`, or config.warm_start.NAME.path=DIR. A folder of transformers can be compared
with what it becomes, from waveform to vector: ssl-audio convert --check FOLDER (writes nothing).
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import convert, startup
from ssl_audio.convert import families, from_state_dict
from ssl_audio.storage import opened

if TYPE_CHECKING:
    from ssl_audio.convert.base import Converted, State


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio convert`."""
    made = startup.parser("convert", __doc__)
    made.add_argument("--from", choices=families(), dest="family")
    made.add_argument("--checkpoint", help=".npz, .safetensors, .pth (needs torch) or a HF folder")
    made.add_argument("--out", help="folder to write")
    made.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="e.g. tstride=10"
    )
    made.add_argument("--strict", action="store_true", help="refuse a head that has no place here")
    made.add_argument(
        "--check",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="compare with the original, as far as it is installed; alone, with the folder of a model "
        "of transformers: convert it in memory and compare on sound (needs the extra torch)",
    )
    made.add_argument(
        "--audio", action="append", default=[], metavar="FILE", help="sound for --check FOLDER"
    )
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, convert, write and print a summary."""
    args = parser().parse_args(argv)
    named = {"--from": args.family, "--checkpoint": args.checkpoint, "--out": args.out}
    if args.check:
        if given := [name for name, value in named.items() if value is not None]:
            parser().error(f"--check {args.check}: compares a folder by itself, without {given[0]}")
        return _compare(args)
    if missing := [name for name, value in named.items() if value is None]:
        parser().error(f"the following arguments are required: {', '.join(missing)}")
    if args.audio:
        parser().error("--audio is the sound for --check FOLDER")
    from ssl_audio.convert.files import read
    from ssl_audio.convert.named import put_words
    from ssl_audio.inference import calibration
    from ssl_audio.storage import atomic, exported

    atomic.check_folder(pathlib.Path(args.out))
    state, options = read(args.checkpoint)
    options |= dict(map(_option, args.option))
    with opened.naming(args.checkpoint):
        model = from_state_dict(args.family, state, strict=args.strict, **options)
    exported.write(args.out, model.params, model.config, unused=model.unused)
    put_words(pathlib.Path(args.out), model.config)
    (pathlib.Path(args.out) / calibration.NAME).unlink(missing_ok=True)  # of what was there before
    print(_table(model))
    if model.left:
        print(f"left out, no place for this head: {', '.join(model.left)}")
    print(f"{args.out}: {args.family} → {model.config['objective']['kind']}")
    if args.check is not None:
        check(args.family, state, model)


def _compare(args: argparse.Namespace) -> None:
    """Print the table of differences.

    Raises:
      SystemExit: with 1, if one is too large.
    """
    import pathlib

    from ssl_audio.convert import compare

    title, rows, left = compare.compare(
        pathlib.Path(args.check), args.audio, dict(map(_option, args.option)), strict=args.strict
    )
    print(compare.table(title, rows, left))
    if any(row.wrong for row in rows):
        raise SystemExit(1)


def check(family: str, state: State, model: Converted) -> None:
    """Print how a converted model compares with its checkpoint, and what could not be compared.

    Raises:
      RuntimeError: it differs.
    """
    from ssl_audio.convert.base import plain_names

    converter = convert.module(family)
    if hasattr(converter, "to_state_dict"):
        back = converter.to_state_dict(model.params, model.config) | model.unused
        there = plain_names(state)
        differ = sorted(back.keys() ^ there.keys())
        differ += [n for n in back.keys() & there.keys() if not np.array_equal(back[n], there[n])]
        if differ:
            raise RuntimeError(f"check: after the way there and back differ: {', '.join(differ)}.")
        print(f"check: {len(there)} arrays are the same bits after the way there and back")
    if not hasattr(converter, "reference"):
        print(f"check: no installable reference of {family}, so no outputs were compared")
        return
    try:
        inputs, wanted = converter.reference(model)
    except ImportError as error:
        print(f"check: outputs were not compared: {error}; pip install 'ssl_audio[torch]'")
        return
    got = model.forward(**inputs)
    errors = {name: float(np.abs(got[name] - wanted[name]).max()) for name in wanted}
    worst = max(errors, key=lambda name: errors[name])
    print(f"check: outputs differ from {family} by {errors[worst]:.1e} at most ({worst})")
    if errors[worst] > 1e-3:
        raise RuntimeError("check: the difference is larger than rounding errors.")


def _option(text: str) -> tuple[str, Any]:
    key, given, value = text.partition("=")
    if not given:
        raise ValueError(f"--option {text}: write KEY=VALUE.")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def _table(model: Converted) -> str:
    """Return lines: group, arrays, values."""
    import jax

    groups = dict(model.params) | ({"(unused, kept)": dict(model.unused)} if model.unused else {})
    lines = [f"{'':20}{'arrays':>8}{'values':>14}"]
    for name, tree in groups.items():
        leaves = jax.tree.leaves(tree)
        lines.append(f"{name:20}{len(leaves):8,}{sum(v.size for v in leaves):14,}")
    return "\n".join(lines)
