"""Export a model to a plain folder: ssl-audio export --checkpoint RUN --out DIR

--to FAMILY adds a published model's names, for its PyTorch code: DIR/state_dict.npz, DIR/FAMILY/, and
with --pth state_dict.pth. --to hub: a folder to be shared, with a model card (--as FAMILY: one that
transformers reads, too). --to stablehlo or onnx: from waveform to features, without this package.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssl_audio import config, convert, slots, startup
from ssl_audio.convert import families
from ssl_audio.convert.named import calibration, put_words, state_dict
from ssl_audio.storage import atomic, opened

SHARED = ("hub", "onnx", "stablehlo")  # what --to takes beside families
OWN = {"as": ("hub",), "licence": ("hub",), "seconds": SHARED[1:], "audio": SHARED[1:]}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio export`."""
    made = startup.parser("export", __doc__)
    made.add_argument(
        "--checkpoint", required=True, help="a workdir, or an exported folder, or hf://…"
    )
    made.add_argument(
        "--step", type=startup.step, help="which checkpoint, or best; default: the newest"
    )
    made.add_argument("--out", required=True, help="folder to write")
    made.add_argument(
        "--to", choices=[*SHARED, *families()], help="what to write beside, see above"
    )
    startup.add_trust(made)
    made.add_argument(
        "--pth", action="store_true", help="with --to FAMILY: a .pth, too (needs torch)"
    )
    made.add_argument("--as", choices=families(), dest="as_family", metavar="FAMILY",
                      help="with --to hub: also for transformers, as hf_ast, hf_speech, clap")  # fmt: skip
    made.add_argument(
        "--licence", help="with --to hub: of the model, as apache-2.0; default: unknown"
    )
    made.add_argument("--seconds", type=float,
                      help="with --to onnx, stablehlo: of a clip; default: as in training")  # fmt: skip
    made.add_argument("--audio", action="append", metavar="FILE",
                      help="with --to onnx, stablehlo: sound to compare outputs on")  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write."""
    args = parser().parse_args(argv)
    if args.pth and args.to in (None, *SHARED):
        parser().error("--pth says how to write the names of --to FAMILY.")
    given = {
        "as": args.as_family,
        "licence": args.licence,
        "seconds": args.seconds,
        "audio": args.audio,
    }
    for name, value in given.items():
        if value is not None and args.to not in OWN[name]:
            parser().error(f"--{name} goes with --to {' or '.join(OWN[name])}.")
    with slots.trusting(args.trust):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    import jax

    from ssl_audio.inference import frozen
    from ssl_audio.inference.load import beside
    from ssl_audio.storage import exported, hub
    from ssl_audio.storage.checkpoint import load_params

    atomic.check_folder(pathlib.Path(args.out))
    params, options = load_params(args.checkpoint, args.step)
    with opened.naming(args.checkpoint):
        opened.member(
            opened.member(options, "objective", dict, "config.json"), "kind", str, "objective"
        )
    where, out = hub.local(args.checkpoint).expanduser(), pathlib.Path(args.out)
    objective = config.build(options["objective"], "objectives")
    extra = beside(args.checkpoint, args.step, objective)
    kept = exported.read_unused(where)
    if objective.needs:
        options = {**options, "objective": frozen.known(options["objective"])}
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    family = args.to if args.to not in SHARED else None
    state = state_dict(family, params, options) | kept if family else None
    if args.to == SHARED[0]:
        from ssl_audio.convert import card, hub_folder

        left = hub_folder.write(
            out, where, params, options, step=args.step, licence=args.licence or card.UNKNOWN,
            family=args.as_family, extra=extra, unused=kept,
        )  # fmt: skip
        for field in left:
            print(f"left out of {out}/config.json, a place of this machine: {field}")
    else:
        exported.write(out, params, options, extra=extra, unused=kept)
        put_words(out, options)
        calibration(where, out, args.step)
    print(f"{out}: {count:,} parameters, {options['objective']['kind']}")
    if state is not None:
        write_state_dict(out, args.to, state, options, pth=args.pth)
        print(f"{out}/state_dict.npz: {len(state)} arrays under the names of {args.to}")
    if args.to == SHARED[1]:
        from ssl_audio.convert import onnx_file

        _show(onnx_file.write(out, seconds=args.seconds, audio=args.audio or ()))
    if args.to == SHARED[2]:
        from ssl_audio.convert import stablehlo

        _show(stablehlo.write(out, seconds=args.seconds, audio=args.audio or ()))


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def write_state_dict(
    out: pathlib.Path,
    family: str,
    state: dict[str, np.ndarray],
    options: dict[str, Any],
    *,
    pth: bool = False,
) -> None:
    """Write a state dict in all the ways that its users read.

    Raises:
      RuntimeError: a .pth is wanted and there is no torch.
    """
    from ssl_audio.storage import exported

    if pth:
        try:
            import torch
        except ImportError:
            raise RuntimeError("--pth needs torch: pip install 'ssl_audio[torch]'.") from None
        # The published loaders expect the prefix of a data-parallel wrapper.
        tensors = {f"module.{n}": torch.from_numpy(np.array(v)) for n, v in state.items()}
        torch.save(tensors, out / "state_dict.pth")
    with atomic.file(out / "state_dict.npz") as file:
        np.savez(file, allow_pickle=False, **state)
    named = out / family
    named.mkdir(exist_ok=True)
    exported.write_arrays(named / exported.PARAMS, state, {"format": "pt"})
    converter = convert.module(family)
    if hasattr(converter, "reference_config"):
        text = json.dumps(converter.reference_config(options), indent=2) + "\n"
        atomic.write(named / "config.json", text)
