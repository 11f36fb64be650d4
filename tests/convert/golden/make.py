"""Record what transformers makes of a waveform with tiny random models: python make.py [NAME …].

Writes NAME.npz beside this file: weights under `param/`, config and feature extractor as JSON, the last
hidden states and the vector of `sound(rate, seconds)` for each length.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers as tf

HERE = pathlib.Path(__file__).parent
SECONDS = (1.0, 0.317)
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SPEECH = SIZES | dict(conv_dim=(8,) * 7)
CONV = dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)
LAYER = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
TEXT = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20,
    max_position_embeddings=20, projection_dim=8,
)  # fmt: skip
AUDIO = dict(
    patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1], num_attention_heads=[1, 2],
    num_hidden_layers=2, projection_dim=8, aff_block_r=2, window_size=4, num_mel_bins=32, spec_size=64,
)  # fmt: skip


def sound(rate, seconds):
    """Return a voice that glides, and a little noise."""
    samples = round(rate * seconds)
    time = np.arange(samples) / rate
    glide = 2 * np.pi * (150 * time + 10 * np.sin(3 * time))
    noise = np.random.default_rng(0).standard_normal(samples)
    voice = sum(np.sin(n * glide) / n for n in range(1, 12))
    return (0.05 * voice + 0.01 * noise).astype(np.float32)


def models():
    """Yield names, models and feature extractors."""
    plain, masked = (tf.Wav2Vec2FeatureExtractor(return_attention_mask=m) for m in (False, True))
    yield "wav2vec2_group", tf.Wav2Vec2Model(tf.Wav2Vec2Config(**SPEECH, **CONV)), plain
    config = tf.HubertConfig(**SPEECH, **CONV, **LAYER)
    yield "hubert_layer", tf.HubertModel(config), masked
    yield "wavlm_group", tf.WavLMModel(tf.WavLMConfig(**SPEECH, **CONV, num_buckets=32)), plain
    config = tf.Data2VecAudioConfig(**SPEECH, num_conv_pos_embedding_groups=4)
    yield "data2vec", tf.Data2VecAudioModel(config), masked
    sizes = dict(max_length=128, num_mel_bins=32)
    yield "ast", tf.ASTModel(tf.ASTConfig(**SIZES, **sizes)), tf.ASTFeatureExtractor(**sizes)
    config = tf.WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=20, num_mel_bins=16, pad_token_id=0,
        max_source_positions=50, max_target_positions=8, decoder_start_token_id=1,
    )  # fmt: skip
    heard = tf.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    yield "whisper", tf.WhisperModel(config), heard
    settings = dict(feature_size=32, hop_length=800, max_length_s=2)
    for name, fused in (("clap_unfused", False), ("clap_fused", True)):
        audio = AUDIO | dict(enable_fusion=fused)
        config = tf.ClapConfig(audio_config=audio, text_config=TEXT, projection_dim=8)
        how = "fusion" if fused else "rand_trunc"
        yield name, tf.ClapModel(config), tf.ClapFeatureExtractor(truncation=how, **settings)


def outputs(name, model, extractor, clip):
    """Return frames, where there are any, and the vector."""
    inputs = extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if "clap" in name:
        inputs["is_longer"] = torch.tensor([[False]])  # one of a batch is marked at random
        return {"vector": model.get_audio_features(**inputs).pooler_output[0]}
    if name == "whisper":  # the frames of the silence that follows a clip do not count
        frames = model.encoder(inputs["input_features"]).last_hidden_state[0]
        frames = frames[: -(-(len(clip) // extractor.hop_length) // 2)]
        return {"frames": frames, "vector": frames.mean(0)}
    found = model(**inputs)
    frames = found.last_hidden_state[0]
    if name == "ast":
        return {"tokens": frames, "vector": found.pooler_output[0]}
    return {"frames": frames, "vector": frames.mean(0)}


def main():
    """Write all files."""
    for name, model, extractor in models():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(0)
        with torch.no_grad():
            for path, value in [*model.named_parameters(), *model.named_buffers()]:
                if path.endswith("running_mean"):
                    value.copy_(torch.randn_like(value) * 10 - 30)
                elif path.endswith("running_var"):
                    value.copy_(100 + 100 * torch.rand_like(value))
                elif value.is_floating_point():
                    value.add_(0.2 * torch.randn_like(value))
            model.eval()
            arrays = {f"param/{k}": v.numpy() for k, v in model.state_dict().items()}
            for seconds in SECONDS:
                clip = sound(extractor.sampling_rate, seconds)
                found = outputs(name, model, extractor, clip)
                arrays |= {f"out/{seconds}/{k}": v.numpy() for k, v in found.items()}
        about = model.config.to_dict() | dict(preprocessor=extractor.to_dict())
        np.savez_compressed(HERE / f"{name}.npz", config_json=json.dumps(about), **arrays)


if __name__ == "__main__":
    main()
