"""EfficientNet-Lite0 of pictures (Tan and Le 2019, arXiv:1905.11946), as efficientnet_lite_pytorch has it.

A frozen encoder of pictures: its vector is the mean of the last map, 1280 wide.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.convert.base import (
    Converted,
    State,
    build,
    image_conv,
    need,
    plain_names,
    stored_norm,
)
from ssl_audio.convert.options import Options

SIDE = 224  # pixels of a picture, as published
# Of TensorFlow's preprocessing of the Lite models: (x - 127) / 128.
MEAN, STD = 127 / 255, 128 / 255
UNUSED = re.compile(r"num_batches_tracked$|^_fc\.")  # a counter, and the classes of ImageNet
PARTS = {  # ours → theirs
    "expand": "_expand_conv", "norm0": "_bn0", "depthwise": "_depthwise_conv", "norm1": "_bn1",
    "project": "_project_conv", "norm2": "_bn2",
}  # fmt: skip


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert the state dict of `efficientnet_lite_pytorch`'s EfficientNet-Lite0.

    Option: image_size (224). `forward(image=[B, Y, X, 3])`, pixels as (x - 127) / 128, gives the maps'
    mean "features" and, where the file has ImageNet's classes, "logits".

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`; another size of the family.
    """
    state, asked = plain_names(state_dict), Options(options)
    kept = {name: value for name, value in state.items() if UNUSED.search(name)}
    state = {name: value for name, value in state.items() if name not in kept}
    (stem,) = need(state, "_conv_stem.weight")
    if stem.shape != (32, 3, 3, 3):
        raise ValueError(f"_conv_stem.weight {stem.shape}: wanted (32, 3, 3, 3), that of Lite0.")
    size = asked.get("image_size", SIDE)
    asked.finish()
    tower = dict(
        kind="towers:Tower",
        tokenizer=dict(kind="pixels:Pixels"),
        encoder=dict(kind="efficientnet"),
        pool=dict(kind="pools:Mean"),
        projector=None,
        length="image_length",
    )
    entry = dict(kind="pictures:Image", size=size, mean=(MEAN,) * 3, std=(STD,) * 3)
    config = dict(
        objective=dict(kind="contrastive", towers=dict(image=tower), edges=()),
        data=dict(entries=dict(image=entry)),
    )
    blank = {"image": jax.ShapeDtypeStruct((1, size, size, 3), np.float32)}
    built, params, left = build(config, lambda p: to_state_dict(p, config), state, blank=blank)
    classes = {n: jnp.asarray(v) for n, v in kept.items() if n.startswith("_fc.")}

    def outputs(params, image):
        found = {"features": built.towers["image"](params["image"], {"image": image}, "image")}
        if classes:
            found["logits"] = (
                found["features"] @ classes["_fc.weight"].T + classes["_fc.bias"][None]
            )
        return found

    return Converted(config, params, outputs, kept | left)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the tower of pictures under the package's names."""
    del config
    encoder = params["image"]["encoder"]
    state = image_conv("_conv_stem", encoder["stem"]) | stored_norm("_bn0", encoder["stem_norm"])
    state |= image_conv("_conv_head", encoder["head"]) | stored_norm("_bn1", encoder["head_norm"])
    names = [name for name in encoder if name.startswith("stage")]
    blocks = sorted({tuple(map(int, name[5:].split("_")[:2])) for name in names})
    for number, (stage, place) in enumerate(blocks):
        for ours, theirs in PARTS.items():
            part = encoder.get(f"stage{stage}_{place}_{ours}")
            if part is not None:
                write = stored_norm if ours.startswith("norm") else image_conv
                state |= write(f"_blocks.{number}.{theirs}", part)
    return state
