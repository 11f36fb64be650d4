"""Published SSAMBA state dicts → our parameters."""

from typing import Any

from ssl_audio.convert.base import Reader, State, stacked
from ssl_audio.convert.ssast import shared


def to_params(state: State, *, paired: bool = True) -> dict[str, Any]:
    """Convert a pretraining or fine-tuning state dict of SSAMBA.

    Args:
      state: reference name → array; the `module.` prefix is accepted.
      paired: the published arrangement, in which every second layer runs on the mirrored sequence; False:
        a plain sequence of layers. The state dict does not tell.

    Raises:
      ValueError: keys are missing or left over; both are listed.
    """
    reader = Reader(state)

    def direction(mixer: str, suffix: str) -> dict[str, Any]:
        log = "A_log" if not suffix else "A_b_log"
        return {
            "conv_kernel": reader.take(f"{mixer}.conv1d{suffix}.weight")[:, 0].T,
            "conv_bias": reader.take(f"{mixer}.conv1d{suffix}.bias"),
            "x_proj": reader.take(f"{mixer}.x_proj{suffix}.weight").T,
            "dt_proj": reader.take(f"{mixer}.dt_proj{suffix}.weight").T,
            "dt_bias": reader.take(f"{mixer}.dt_proj{suffix}.bias"),
            "a_log": reader.take(f"{mixer}.{log}"),
            "skip": reader.take(f"{mixer}.D{suffix}"),
        }

    def mixer(i: int) -> dict[str, Any]:
        name = f"v.layers.{i}.mixer"
        return {
            "in_proj": reader.take(f"{name}.in_proj.weight").T,
            "out_proj": reader.take(f"{name}.out_proj.weight").T,
            "forward": direction(name, ""),
            "backward": direction(name, "_b"),
        }

    def layer(i: int, suffix: str) -> dict[str, Any]:
        return {f"norm_{suffix}": reader.norm(f"v.layers.{i}.norm"), f"mixer_{suffix}": mixer(i)}

    depth = reader.count("v.layers.")
    if paired:
        layers = [layer(i, "ahead") | layer(i + 1, "mirrored") for i in range(0, depth, 2)]
    else:
        layers = [
            {"norm_mixer": reader.norm(f"v.layers.{i}.norm"), "mixer": mixer(i)}
            for i in range(depth)
        ]
    encoder = {"layers": stacked(layers), "final_norm": {"norm": reader.norm("v.norm_f")}}
    return shared(reader, encoder, ("v.cls_token",))
