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


def beats(width=16, inner=8, depth=1, patch=16):
    """Return one of BEATs; of equal widths it has no projection between them."""
    rng = np.random.default_rng(0)
    shapes = {
        "patch_embedding.weight": (inner, 1, patch, patch),
        "layer_norm.weight": (inner,),
        "layer_norm.bias": (inner,),
        "encoder.pos_conv.0.weight_g": (1, 1, 16),
        "encoder.pos_conv.0.weight_v": (width, width // 4, 16),
        "encoder.pos_conv.0.bias": (width,),
        "encoder.layer_norm.weight": (width,),
        "encoder.layer_norm.bias": (width,),
    }
    if inner != width:
        shapes |= {"post_extract_proj.weight": (width, inner), "post_extract_proj.bias": (width,)}
    for i in range(depth):
        at = f"encoder.layers.{i}"
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{at}.{name}.weight": (width,), f"{at}.{name}.bias": (width,)}
        linear = {f"self_attn.{n}_proj": (width, width) for n in ("q", "k", "v", "out")}
        for name, shape in (linear | {"fc1": (32, width), "fc2": (width, 32)}).items():
            shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
    return {k: rng.normal(0, 0.3, s).astype(np.float32) for k, s in shapes.items()}


def audiomosaic(width=16, rows=2, columns=3, side=16, hidden=8, out=4):
    """Return one of AudioMosaic: two layers and the projector."""
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, rows * columns + 1, width),
        "patch_embed.proj.weight": (width, 1, side, side),
        "patch_embed.proj.bias": (width,),
        "projector.0.weight": (hidden, width),
        "projector.3.weight": (out, hidden),
    }
    norms = {"patch_embed.norm": width, "norm_pre": width, "fc_norm": width, "projector.1": hidden}
    for i in range(2):
        norms |= {f"blocks.{i}.norm1": width, f"blocks.{i}.norm2": width}
        for name, many, into in (
            ("attn.qkv", 3, 1),
            ("attn.proj", 1, 1),
            ("mlp.fc1", 2, 1),
            ("mlp.fc2", 1, 2),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (many * width, into * width)
            shapes[f"blocks.{i}.{name}.bias"] = (many * width,)
    for name, size in (norms | {"projector.4": out}).items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    for name, size in (("projector.1", hidden), ("projector.4", out)):
        shapes |= {f"{name}.running_mean": (size,), f"{name}.running_var": (size,)}
    state = {k: rng.normal(0, 0.2, s).astype(np.float32) for k, s in shapes.items()}
    return state | {"projector.4.bias": np.zeros(out, np.float32)}
