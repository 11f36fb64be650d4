"""Pretrain, adapt and use self-supervised audio encoders in JAX. The tree:

structs, arrays, losses    the data types that are passed along, letters of axes, formulas of losses
config, slots              options → objects; which classes an option may name
config_files               `--config`, and the configs of this package → ssl-audio configs
startup, versions          what every command does first; versions of the libraries
distributed/   processes and how they find each other; meshes and layouts
storage/       checkpoints, exported folders, tables; files written whole; work divided among machines
data/          files → waveforms in batches (host side, numpy) → ssl-audio prepare
frontend/      waveforms → spectrograms, on the device
layers/        arrays → arrays: attention, Mamba and its scan, norms, residual blocks
quantizers/    vectors → codes
tokens/        spectrograms, waveforms, words → tokens; positions and masks
heads/         encoded tokens → predictions
backbones/     tokens → encoded tokens: the stack of layers, CNNs, HTSAT, Zipformer
objectives/    what is learned, one file per method
train/         the generic step and loop, compiled steps in files → ssl-audio train, preview, stages
inference/     `load`: a trained model → features of any audio → ssl-audio embed, search, kmeans
eval/          probes and evaluators → ssl-audio evaluate, zero-shot, folds, report
explore/       sounds, a map and labels in a browser → ssl-audio explore
presets/       what several configs share
convert/       foreign checkpoints → ours and back → ssl-audio convert, export
bench/         speed and memory → ssl-audio bench, compile-scan

A file imports from its own folder and from lines above it (tests/test_laws.py).
"""

from typing import TYPE_CHECKING, Any

from ssl_audio.versions import __version__

if TYPE_CHECKING:
    from ssl_audio.inference.audio_text import AudioTextModel
    from ssl_audio.inference.classifier import Classifier
    from ssl_audio.inference.encoder import Encoder
    from ssl_audio.inference.load import load
    from ssl_audio.inference.model import Model
    from ssl_audio.startup import tune_cpu

__all__ = ["AudioTextModel", "Classifier", "Encoder", "Model", "__version__", "load", "tune_cpu"]

# Name → module, imported at first use since most import JAX.
_LAZY = {
    "AudioTextModel": "inference.audio_text",
    "Classifier": "inference.classifier",
    "Encoder": "inference.encoder",
    "Model": "inference.model",
    "load": "inference.load",
    "tune_cpu": "startup",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"ssl_audio.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'ssl_audio' has no attribute '{name}'")
