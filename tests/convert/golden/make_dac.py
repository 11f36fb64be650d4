"""Record what DacModel and descript-audio-codec make of sound with tiny random weights: python make_dac.py

Needs transformers, torch, and of `pip install --no-deps descript-audio-codec==1.0.0
descript-audiotools==0.7.2 einops` only the model: what else these import is stood in for.
"""

import importlib.util
import json
import pathlib
import sys
import types
from typing import Any

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
RATE, RATIOS = 8000, [2, 3]
BOOKS = dict(n_codebooks=3, codebook_size=16, codebook_dim=4)


def sound(samples):
    """Return two tones that rise, and a little noise, [2, 1, S]."""
    time = np.arange(samples) / RATE
    tones = [np.sin(2 * np.pi * hz * time * (1 + 10 * time)) for hz in (300, 500)]
    noise = np.random.default_rng(0).standard_normal((2, samples))
    return (0.3 * np.stack(tones) + 0.3 * noise)[:, None].astype(np.float32)


def randomised(model):
    """Return a model in evaluation mode with weights and activations as different as trained ones."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=random)
            if name.endswith("alpha"):
                value.copy_(2 + 2 * drawn.abs())
            elif name.endswith("bias"):
                value.copy_(0.02 * drawn)
            elif name.endswith("weight_g"):
                value.mul_(1 + 0.2 * drawn)
            else:
                value.copy_(drawn / (1 if "codebook" in name else value[0].numel() ** 0.5))
            if name == "decoder.conv2.weight":
                value.mul_(0.05)  # or the hyperbolic tangent would be 1 everywhere
    return model.eval()


def write(name, model, options, audio, outputs):
    """Write weights, options, in- and outputs."""
    arrays = {f"param/{k}": v.numpy() for k, v in model.state_dict().items()}
    arrays |= {"in/input_values": audio} | {f"out/{k}": v.numpy() for k, v in outputs.items()}
    np.savez_compressed(HERE / f"{name}.npz", config_json=json.dumps(options), **arrays)


def published():
    """Write dac.npz."""
    from transformers import DacConfig, DacFeatureExtractor, DacModel

    sizes = dict(encoder_hidden_size=4, decoder_hidden_size=8, downsampling_ratios=RATIOS)
    config = DacConfig(**sizes, **BOOKS, sampling_rate=RATE)
    model = randomised(DacModel(config))
    hear = DacFeatureExtractor(hop_length=config.hop_length, sampling_rate=RATE)
    audio = sound(200)
    inputs = hear(list(audio[:, 0]), sampling_rate=RATE, return_tensors="pt")["input_values"]
    found, two = model(inputs), model(inputs, n_quantizers=2)
    names = ("audio_codes", "quantized_representation", "projected_latents", "audio_values")
    outputs = {name: found[name] for name in names} | {"two_books": two.audio_values}
    write("dac", model, config.to_dict(), audio, outputs)


def original():
    """Write dac_descript.npz."""
    find: Any = importlib.util.find_spec
    audiotools, dac = (pathlib.Path(find(n).origin).parent for n in ("audiotools", "dac"))
    spec: Any = importlib.util.spec_from_file_location("base", audiotools / "ml/layers/base.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    standing: dict[str, Any] = {
        name: types.ModuleType(name)
        for name in ("audiotools", "audiotools.ml", "dac", "dac.nn", "dac.model")
    }
    for name in ("dac", "dac.nn", "dac.model"):
        standing[name].__path__ = [str(dac.joinpath(*name.split(".")[1:]))]
    standing["audiotools"].AudioSignal = object
    standing["audiotools.ml"].BaseModel = module.BaseModel
    sys.modules |= standing
    from dac.model.dac import DAC

    sizes = dict(encoder_dim=4, encoder_rates=RATIOS, latent_dim=10, decoder_dim=8)
    options = sizes | dict(decoder_rates=RATIOS[::-1], quantizer_dropout=0.5, sample_rate=RATE)
    model = randomised(DAC(**options, **BOOKS))
    audio = sound(200)
    found = model(torch.from_numpy(audio))
    outputs = {"audio_codes": found["codes"], "quantized_representation": found["z"]}
    outputs |= {"projected_latents": found["latents"], "audio_values": found["audio"][:, 0]}
    write("dac_descript", model, options | BOOKS, audio, outputs)


if __name__ == "__main__":
    torch.manual_seed(0)  # the original's lengths of weights are what its random weights have
    with torch.no_grad():
        published()
        original()
