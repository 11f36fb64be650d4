"""Folders of transformers with random weights, to compare with what they become (torch, transformers).

python experiments/convert/models.py OUT [--tiny] [NAME …], then ssl-audio convert --check OUT/NAME
"""

import argparse
import pathlib
from typing import Any

import torch
import transformers as tf

SIZES = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128)
SPEECH = SIZES | dict(
    conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4
)
TEXT = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=100,
    projection_dim=32,
)  # fmt: skip
AUDIO = dict(
    patch_embeds_hidden_size=16, hidden_size=128, depths=[2, 2, 2, 2],
    num_attention_heads=[1, 2, 4, 8], num_hidden_layers=4, projection_dim=32, aff_block_r=4,
)  # fmt: skip
LAYER = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)


def speech(kind: str, norm: str, tiny: bool) -> tuple[Any, Any]:
    """Return a speech encoder, as the published base and large ones, and its feature extractor."""
    config = getattr(tf, f"{kind}Config")(
        **(SPEECH if tiny else {}), **(LAYER if norm == "layer" else {})
    )
    extractor = tf.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    return getattr(tf, f"{kind}Model")(config), extractor


def data2vec(tiny: bool) -> tuple[Any, Any]:
    """Return data2vec audio."""
    sizes = {k: v for k, v in SPEECH.items() if k != "num_conv_pos_embeddings"}
    config = tf.Data2VecAudioConfig(**(sizes if tiny else {}))
    return tf.Data2VecAudioModel(config), tf.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def ast(tiny: bool) -> tuple[Any, Any]:
    """Return an AST."""
    return tf.ASTModel(tf.ASTConfig(**(SIZES if tiny else {}))), tf.ASTFeatureExtractor()


def clap(fused: bool, tiny: bool) -> tuple[Any, Any]:
    """Return a CLAP, as those of LAION with and without fusion."""
    audio = (AUDIO if tiny else {}) | dict(enable_fusion=fused)
    more = dict(text_config=TEXT, projection_dim=32) if tiny else {}
    truncation = "fusion" if fused else "rand_trunc"
    extractor = tf.ClapFeatureExtractor(truncation=truncation, frequency_min=50)
    return tf.ClapModel(tf.ClapConfig(audio_config=audio, **more)), extractor


MODELS = {
    "wav2vec2_group": lambda tiny: speech("Wav2Vec2", "group", tiny),
    "wav2vec2_layer": lambda tiny: speech("Wav2Vec2", "layer", tiny),
    "hubert_group": lambda tiny: speech("Hubert", "group", tiny),
    "hubert_layer": lambda tiny: speech("Hubert", "layer", tiny),
    "wavlm_group": lambda tiny: speech("WavLM", "group", tiny),
    "wavlm_layer": lambda tiny: speech("WavLM", "layer", tiny),
    "data2vec": data2vec,
    "ast": ast,
    "clap_unfused": lambda tiny: clap(False, tiny),
    "clap_fused": lambda tiny: clap(True, tiny),
}


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(MODELS)}"
    )
    parser.add_argument("--tiny", action="store_true", help="few and narrow layers")
    args = parser.parse_args()
    for name in args.names or MODELS:
        torch.manual_seed(0)
        model, extractor = MODELS[name](args.tiny)
        with torch.no_grad():
            for path, value in [*model.named_parameters(), *model.named_buffers()]:
                if path.endswith("running_mean"):  # of decibels
                    value.copy_(torch.randn_like(value) * 10 - 30)
                elif path.endswith("running_var"):
                    value.copy_(100 + 300 * torch.rand_like(value))
                elif (
                    value.ndim == 1 and value.is_floating_point()
                ):  # norms and biases start as 1 and 0
                    value.add_(0.1 * torch.randn_like(value))
        model.eval().save_pretrained(args.out / name)
        extractor.save_pretrained(args.out / name)
        print(args.out / name)


if __name__ == "__main__":
    main()
