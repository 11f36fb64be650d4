"""Any run that `ssl_audio.load` takes as an encoder of X-ARES, or of XARES-LLM (extra `xares`).

Their runners take a Python file with one name that ends in "Encoder", as RunEncoder = encoder("runs/ssamba").
"""

import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ssl_audio.inference.encoder import FINAL, Encoder
from ssl_audio.inference.load import load

LLM_RATE = 16_000  # Hz, at which XARES-LLM gives sound


def encoder(
    run: str, *, layer: int = FINAL, llm: bool = False, name: str = "", trust: Iterable[str] = ()
) -> type:
    """Return a class of torch modules without parameters, made without arguments, that hold an encoder.

    Called with sound [B, S], a module gives features of patch columns along time, float32 [B, T', rows * D],
    those of the padding of a batch too. Its attributes are `sampling_rate` (Hz), `output_dim` and
    `hop_size_in_ms`.

    Args:
      run: the workdir of a run, or an exported or converted folder.
      layer: see `Encoder.embed`.
      llm: for XARES-LLM, whose modules take sound at 16 kHz and a mask [B, S] (1: sound, 0: padding), and
        give features and a mask [B, T'] of them. Padding is then not heard.
      name: of the class, ending in "Encoder"; X-ARES keeps features in a folder of that name. Default: from
        the folder's name.
      trust: see `ssl_audio.load`.

    Raises:
      ValueError: a name of another form; see `ssl_audio.load`. No such layer, when the module is made.
      RuntimeError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise RuntimeError("X-ARES needs torch: pip install 'ssl_audio[xares]'.") from None
    name = name or named(run)
    if not name.isidentifier() or not name.endswith("Encoder"):
        raise ValueError(f"name: got {name!r}, wanted one that ends in 'Encoder'.")
    trusted = tuple(trust)

    class Module(torch.nn.Module):
        def __init__(self, **kwargs: Any):
            del kwargs  # XARES-LLM gives what its --model_args say
            super().__init__()
            self.encoder: Encoder = load(run, trust=trusted).encoder
            self.encoder.check_layer(layer)
            self.sampling_rate = LLM_RATE if llm else self.encoder.rate
            self.output_dim = self.encoder.rows * self.encoder.width
            self.hop_size_in_ms = float(np.diff(self.encoder.times(2))[0])

        def forward(self, audio: Any, audio_attention_mask: Any = None) -> Any:
            clips = np.atleast_2d(audio.detach().cpu().numpy())
            lengths = None
            if audio_attention_mask is not None:
                lengths = audio_attention_mask.detach().cpu().numpy().sum(axis=1).astype(int)
            found, mask = columns(self.encoder, clips, self.sampling_rate, layer, lengths)
            features = torch.from_numpy(found).to(audio.device)
            return (features, torch.from_numpy(mask).to(audio.device)) if llm else features

    Module.__name__ = Module.__qualname__ = name
    return Module


def columns(
    encoder: Encoder, audio: np.ndarray, rate: int, layer: int, lengths: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return features [B, T', rows * D] of sound [B, S], zeros after a clip's end, and which are not [B, T'].

    Args:
      encoder: a trained encoder.
      audio: [B, S].
      rate: of the sound, Hz.
      layer: see `Encoder.embed`.
      lengths: [B], samples that are no padding; None: all.
    """
    ends = np.full(len(audio), audio.shape[1]) if lengths is None else np.maximum(lengths, 1)
    cut = [clip[:end] for clip, end in zip(audio, ends, strict=True)]
    found = dict(encoder.stream(encoder.clips(cut, rate), (layer,)))
    each = [found[i][0] for i in range(len(cut))]
    most = max(len(x) for x in each)
    features = np.zeros((len(each), most, each[0].shape[1]), np.float32)
    mask = np.zeros((len(each), most), np.int64)
    for i, x in enumerate(each):
        features[i, : len(x)], mask[i, : len(x)] = x, 1
    return features, mask


def named(run: str) -> str:
    """Return a name for the class of a run: of runs/ssamba-2, "Ssamba2Encoder"."""
    words = re.findall(r"[A-Za-z0-9]+", pathlib.PurePath(run).name)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return f"{joined if joined[:1].isalpha() else f'Run{joined}'}Encoder"
