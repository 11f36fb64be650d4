"""Small state dicts under the published names, with numbers that tell every element from the others."""

import numpy as np


def ssast(width=64, depth=2, rows=2, columns=4, patch=(16, 16), classes=0):
    """Return one of SSAST: pretraining, or fine-tuned if there are classes."""
    rng = np.random.default_rng(0)
    size, two = patch[0] * patch[1], 2 * width
    shapes = {
        "v.cls_token": (1, 1, width),
        "v.dist_token": (1, 1, width),
        "v.pos_embed": (1, rows * columns + 2, width),
        "v.patch_embed.proj.weight": (width, 1, *patch),
        "v.patch_embed.proj.bias": (width,),
        "v.norm.weight": (width,),
        "v.norm.bias": (width,),
        "v.head.weight": (10, width),
        "v.head.bias": (10,),
    }
    for i in range(depth):
        block = f"v.blocks.{i}"
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}.{name}.weight": (width,), f"{block}.{name}.bias": (width,)}
        for name, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", two, width),
            ("mlp.fc2", width, two),
        ):
            shapes |= {f"{block}.{name}.weight": (out, into), f"{block}.{name}.bias": (out,)}
    if classes:
        shapes |= {"mlp_head.0.weight": (width,), "mlp_head.0.bias": (width,)}
        shapes |= {"mlp_head.1.weight": (classes, width), "mlp_head.1.bias": (classes,)}
    else:
        shapes["mask_embed"] = (1, 1, width)
        for head in ("cpredlayer", "gpredlayer"):
            shapes |= {f"{head}.0.weight": (width, width), f"{head}.0.bias": (width,)}
            shapes |= {f"{head}.2.weight": (size, width), f"{head}.2.bias": (size,)}
    state = {k: rng.normal(0, 0.1, s).astype(np.float32) for k, s in shapes.items()}
    if not classes:
        state["p_input_fdim"] = np.array(rows * patch[0])
        state["p_input_tdim"] = np.array(columns * patch[1])
    return state
