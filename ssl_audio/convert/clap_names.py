"""The names of CLAP's arrays: those of LAION's own files and those of transformers."""

import numpy as np

from ssl_audio.convert.base import State
from ssl_audio.convert.minilm import QKV

AUDIO, TEXT = "audio_model.audio_encoder.", "text_model."
# LAION's names and those of transformers, within a name; qkv apart.
LAION = (
    ("audio_branch.", AUDIO),
    ("text_branch.", TEXT),
    ("audio_encoder.bn0.", "audio_encoder.batch_norm."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
    (".attn.proj.", ".attention.output.dense."),
    (".attn.relative", ".attention.self.relative"),
    ("_projection.0.", "_projection.linear1."),
    ("_projection.2.", "_projection.linear2."),
)


def to_transformers(state: State) -> dict[str, np.ndarray]:
    """Return LAION's arrays under the names of transformers."""
    found = {}
    for name, value in state.items():
        for theirs, hf in LAION:
            name = name.replace(theirs, hf)
        if ".attn.qkv." in name:
            for part, third in zip(QKV, np.split(value, 3), strict=True):
                found[name.replace(".attn.qkv.", f".attention.self.{part}.")] = third
        else:
            found[name] = value
    return found


def to_laion(state: State) -> dict[str, np.ndarray]:
    """Return arrays under the names of transformers as LAION has them."""
    found = {}
    for name, value in state.items():
        if not name.startswith(TEXT):
            query = ".attention.self.query."
            if any(f".attention.self.{part}." in name for part in QKV[1:]):
                continue
            if query in name:
                thirds = [state[name.replace("query", part)] for part in QKV]
                name, value = name.replace(query, ".attn.qkv."), np.concatenate(thirds)
            for theirs, hf in reversed(LAION[2:]):
                name = name.replace(hf, theirs)
        for theirs, hf in LAION[:2]:
            name = name.replace(hf, theirs)
        found[name] = value
    return found
