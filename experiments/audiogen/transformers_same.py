"""Sound that MusicgenForConditionalGeneration of transformers makes, and the same random weights here.

python experiments/audiogen/transformers_same.py
Takes torch and transformers. Two texts of different lengths, as numbers; both draw the likeliest code.
"""

import tempfile

import numpy as np
import torch
import transformers

import ssl_audio
from ssl_audio.convert import command

CODES, STEPS = 64, 24
WORDS = torch.tensor([[5, 6, 7, 1], [9, 1, 0, 0]])  # 1 ends a text, 0 fills it up


def reference() -> transformers.MusicgenForConditionalGeneration:
    """Return a small model of random weights."""
    torch.manual_seed(0)
    text = transformers.T5Config(
        vocab_size=97, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    audio = transformers.EncodecConfig(
        sampling_rate=1600, hidden_size=12, num_filters=4, upsampling_ratios=[8, 2, 2],
        codebook_size=CODES, codebook_dim=12, target_bandwidths=[1.2], use_causal_conv=False,
        pad_mode="constant", use_conv_shortcut=False, audio_channels=1, num_lstm_layers=1,
    )  # fmt: skip
    decoder = transformers.MusicgenDecoderConfig(
        vocab_size=CODES, hidden_size=48, num_hidden_layers=3, ffn_dim=96, num_attention_heads=4,
        num_codebooks=4, pad_token_id=CODES, bos_token_id=CODES, max_position_embeddings=256,
    )  # fmt: skip
    config = transformers.MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=audio.to_dict(), decoder=decoder.to_dict()
    )
    model = transformers.MusicgenForConditionalGeneration(config).eval()
    with torch.no_grad():
        for head in model.decoder.lm_heads:
            head.weight.mul_(20)  # else rounding decides which code is the likeliest
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()  # as made, all entries are 0
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, CODES)
    return model


def main():
    """Compare."""
    theirs = reference()
    heard = (WORDS > 0).long()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(f"{folder}/theirs")
        command.main(
            ["--from", "musicgen", "--checkpoint", f"{folder}/theirs", "--out", f"{folder}/ours"]
        )
        ours = ssl_audio.load(f"{folder}/ours")
    lengths = heard.sum(1).numpy().astype(np.int32)
    batch = {"text": WORDS.numpy().astype(np.int32), ours.objective.text.length: lengths}
    given, _ = ours.objective.condition(ours.params, batch)
    condition = [np.asarray(one[:length]) for one, length in zip(given, lengths, strict=True)]
    for guidance in (1.0, 3.0):
        with torch.no_grad():
            wanted = theirs.generate(
                input_ids=WORDS, attention_mask=heard, do_sample=False, max_new_tokens=STEPS,
                guidance_scale=guidance,
            ).numpy()[:, 0]  # fmt: skip
        found = ours.generate(
            condition=condition, seconds=wanted.shape[1] / 1600, guidance=guidance, temperature=0.0,
        )  # fmt: skip
        far = [float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True)]
        print(
            f"guidance {guidance:g}: at most {max(far):.1e}, of sound up to {np.abs(wanted).max():.2f}"
        )


if __name__ == "__main__":
    main()
