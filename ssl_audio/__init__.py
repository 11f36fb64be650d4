"""Pretrain, adapt and use self-supervised audio encoders in JAX. The tree, in order of the data:

data/        files → waveforms in batches (host side, numpy)
frontend/    waveforms → spectrograms, on the device
tokens/      spectrograms → patches, positions, masks
backbones/   patches → features: Transformer, bidirectional Mamba
objectives/  what is learned, one file per method; losses.py holds the formulas
optim, sharding, step, train    the generic loop → python -m ssl_audio.train
checkpoint, record, hosts       what a run keeps, tells and shares between machines (world, watch)
preview, flops                  what a run will need → python -m ssl_audio.preview
encoder      `load`: a trained encoder → features of any audio → python -m ssl_audio.embed
joint        audio and text in one space: labels in words → python -m ssl_audio.zero_shot, search
eval/        probes of frozen features → python -m ssl_audio.evaluate
config, recipes                 options → objects; shared presets
convert/, export, folder        foreign checkpoints → ours and back; the plain folder in between
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_audio.encoder import Encoder, load

__version__ = "0.1.0"
__all__ = ["Encoder", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Encoder", "load"):
        from ssl_audio import encoder  # brings JAX along, so only when asked for

        return getattr(encoder, name)
    raise AttributeError(f"module 'ssl_audio' has no attribute '{name}'")
