"""Export a model to a plain folder: ssl-audio export --checkpoint RUN --out DIR

With --to also under a published model's names, so that its PyTorch code can load it: DIR/state_dict.npz,
DIR/FAMILY/model.safetensors, and with --pth DIR/state_dict.pth.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_audio import convert, slots, startup
from ssl_audio.convert import families
from ssl_audio.storage import atomic, opened


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio export`."""
    made = startup.parser("export", __doc__)
    made.add_argument("--checkpoint", required=True, help="a workdir, or an exported folder")
    made.add_argument("--step", type=int, help="which checkpoint; default: the newest")
    made.add_argument("--out", required=True, help="folder to write")
    made.add_argument("--to", choices=families(), help="also write this family's names")
    startup.add_trust(made)
    made.add_argument("--pth", action="store_true", help="with --to: a .pth, too (needs torch)")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write."""
    args = parser().parse_args(argv)
    if args.pth and not args.to:
        parser().error("--pth says how to write the names of --to FAMILY.")
    import jax

    from ssl_audio.storage import exported
    from ssl_audio.storage.checkpoint import load_params

    atomic.check_folder(pathlib.Path(args.out))
    with slots.trusting(args.trust):
        params, options = load_params(args.checkpoint, args.step)
    with opened.naming(args.checkpoint):
        opened.member(
            opened.member(options, "objective", dict, "config.json"), "kind", str, "objective"
        )
    kept = exported.read_unused(args.checkpoint)
    state = state_dict(args.to, params, options) | kept if args.to else None
    out = exported.write(args.out, params, options, unused=kept)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"{out}: {count:,} parameters, {options['objective']['kind']}")
    if state is not None:
        write_state_dict(out, args.to, state, options, pth=args.pth)
        print(f"{out}/state_dict.npz: {len(state)} arrays under the names of {args.to}")


def state_dict(family: str, params: Any, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under a published model's names, without `module.`.

    Args:
      family: a file of `convert/` that can write.
      params: numpy arrays.
      options: the config.

    Raises:
      ValueError: the model is not one of this family, which has no name for some parameter.
    """
    from ssl_audio.convert.base import nameless

    converter = convert.module(family)
    if not hasattr(converter, "to_state_dict"):
        raise ValueError(f"{family}: this family can be read, not written.")
    kind = options["objective"]["kind"]
    try:
        state = converter.to_state_dict(params, options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{family} has no model like this ({kind}): no {error}.") from error
    if lost := nameless(params, lambda p: converter.to_state_dict(p, options)):
        raise ValueError(
            f"{family} has no names for all parameters of this model ({kind}): {', '.join(lost[:8])}."
        )
    return state


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
