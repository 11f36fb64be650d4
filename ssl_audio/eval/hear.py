"""The HEAR 2021 interface (Turian et al. 2022, arXiv:2203.03022) to any run that `ssl_audio.load` takes.

HEAR's tools import this module by its name: hear-validator ssl_audio.eval.hear --model RUN. They
want torch tensors (pip install 'ssl_audio[hear]'); `scenes` and `timestamps` do without torch.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ssl_audio.eval.hear_windows import Windows
from ssl_audio.inference.encoder import FINAL, Encoder
from ssl_audio.inference.load import load
from ssl_audio.inference.pooling import check_pool, pooling

SPACING = 50.0  # ms, at most, between timestamps


def load_model(
    model_file_path: str = "",
    *,
    layer: int = FINAL,
    pool: str = "mean",
    windows: Mapping[str, float] | None = None,
    trust: Iterable[str] = (),
) -> Any:
    """Return a torch.nn.Module without parameters that holds the encoder.

    HEAR's `--model-options '{"layer": 5}'` sets the options.

    Args:
      model_file_path: the workdir of a run.
      layer: see `Encoder.embed`.
      pool: of scene embeddings; see `Encoder.embed`.
      windows: embed windows of the clip, each by its logits and special tokens, as PaSST does: fields of
        `hear_windows.Windows`, all with a default. `layer` and `pool` then have no say.
      trust: see `ssl_audio.load`.

    Raises:
      ValueError: no path; no such layer or pool.
      RuntimeError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise RuntimeError("HEAR needs torch: pip install 'ssl_audio[hear]'.") from None
    if not model_file_path:
        raise ValueError("load_model: got no path; wanted the workdir of a run (--model RUN).")
    check_pool(pool)
    encoder = load(model_file_path, trust=trust).encoder
    encoder.check_layer(layer)
    cut = None if windows is None else Windows(**windows)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.layer, self.pool, self.windows = encoder, layer, pool, cut
            self.sample_rate = encoder.rate
            if cut is not None:
                self.scene_embedding_size = self.timestamp_embedding_size = cut.size(encoder)
                return
            self.timestamp_embedding_size = encoder.rows * encoder.width
            column = np.zeros((1, self.timestamp_embedding_size), np.float32)
            self.scene_embedding_size = pooling(column, encoder.rows, pool).size

        def forward(self, audio):
            return get_scene_embeddings(audio, self)

    return Model()


def get_scene_embeddings(audio: Any, model: Any) -> Any:
    """Return one vector per clip.

    Args:
      audio: tensor [n, S] in [-1, 1] at `model.sample_rate`.
      model: of `load_model`.

    Returns:
      A float32 tensor [n, scene_embedding_size] where the audio lies.
    """
    if model.windows is not None:
        return _tensor(model.windows.scenes(model.encoder, _array(audio)), audio)
    return _tensor(scenes(model.encoder, _array(audio), layer=model.layer, pool=model.pool), audio)


def get_timestamp_embeddings(audio: Any, model: Any) -> tuple[Any, Any]:
    """Return features along time; see `timestamps`.

    Args:
      audio: tensor [n, S] in [-1, 1] at `model.sample_rate`.
      model: of `load_model`.

    Returns:
      A float32 tensor [n, t, timestamp_embedding_size] and their times, ms [n, t].
    """
    if model.windows is not None:
        found, times = model.windows.timestamps(model.encoder, _array(audio))
    else:
        found, times = timestamps(model.encoder, _array(audio), layer=model.layer)
    return _tensor(found, audio), _tensor(times, audio)


def scenes(
    encoder: Encoder, audio: np.ndarray, *, layer: int = FINAL, pool: str = "mean"
) -> np.ndarray:
    """Return one vector per clip: [n, D'] for [n, S] at the encoder's rate."""
    return encoder.embed(list(audio), encoder.rate, layer=layer, pool=pool)


def timestamps(
    encoder: Encoder, audio: np.ndarray, *, layer: int = FINAL
) -> tuple[np.ndarray, np.ndarray]:
    """Return features of patch columns at most 50 ms apart, [n, t, rows * D], and their times, ms [n, t].

    Where columns lie further apart, the clips are encoded several times, each time beginning a part
    of a column later, and the passes' columns interleaved: nothing is interpolated. Times are the
    columns' centres, from that of the first column on, none past the end of the clip.

    Args:
      encoder: a trained encoder.
      audio: [n, S] at the encoder's rate.
      layer: see `Encoder.embed`.

    Raises:
      ValueError: as `Encoder.embed`.
    """
    encoder.check_layer(layer)
    clips = np.stack([encoder.clips([clip], encoder.rate)[0] for clip in audio])
    step = np.diff(encoder.times(2))[0]  # ms
    passes = int(np.ceil(step / SPACING - 1e-6))  # what is twice 50 ms but for rounding is two
    starts = [round(k * step / passes * encoder.rate / 1000) for k in range(passes)]
    starts = [start for start in starts if start < clips.shape[1]]
    shifted = (clip[start:] for start in starts for clip in clips)
    found = dict(encoder.stream(shifted, (layer,)))
    grouped = [
        np.stack([found[k * len(clips) + i][0] for i in range(len(clips))])
        for k in range(len(starts))
    ]
    # A later pass may lack the last column, and only the last; what is past the end goes anyway.
    count = sum(group.shape[1] for group in grouped)
    duration = 1000 * clips.shape[1] / encoder.rate
    times = encoder.times(1)[0] + np.arange(count) * (step / passes)
    times = np.minimum(times[: max(1, np.searchsorted(times, duration, side="right"))], duration)
    features = np.stack([grouped[m % passes][:, m // passes] for m in range(len(times))], axis=1)
    return features, np.tile(times, (len(clips), 1))


def _array(audio: Any) -> np.ndarray:
    return audio.detach().cpu().numpy()


def _tensor(values: np.ndarray, like: Any) -> Any:
    import torch

    return torch.from_numpy(values).to(like.device)
