"""What configs of AudioNTT on clips of about one second share: LAPE's log-mel, BYOL-A's augmentations.

Facts of the released code of LAPE (Sreyan88/LAPE), which has BYOL-A's (arXiv:2103.06695).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

SAMPLES = 15_200  # 0.95 s at 16 kHz
# Mean and deviation, dB, of ESC-10 and spoken digits, heard equally often: 15,200 samples of each clip. LAPE
# measures those of its training data as it goes; here they are part of the model.
LOG_MEL: Mapping[str, Any] = MappingProxyType(
    dict(
        kind="mel", rate=16_000, bins=64, hop=160, window=1024, low=60.0, high=7800.0, added=2.0**-23,
        frames=96, mean=-34.1, std=23.2,
    )
)  # fmt: skip


def parts(width: int = 2048, channels: int = 64) -> dict[str, Any]:
    """Return frontend, tokenizer and encoder."""
    return dict(
        frontend=dict(LOG_MEL),
        tokenizer=dict(kind="bins", norm=None),
        encoder=dict(
            kind="audio_ntt:AudioNtt", width=width, channels=channels, blocks=3, dropout=0.3
        ),
    )


def views(clips: int = 2048, mixup: str = "LogMixup") -> dict[str, Any]:
    """Return what draws a view, remembering so many clips, with this class of mixtures."""
    return dict(
        kind="mixed_crops:MixedCrops",
        mixup=dict(kind=f"mixed_crops:{mixup}", most=0.4, clips=clips),
        crop=dict(
            kind="mixed_crops:ResizedCrop",
            canvas=(1.0, 1.5),
            frequency=(0.6, 1.5),
            time=(0.6, 1.5),
        ),
    )
