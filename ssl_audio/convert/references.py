"""Published models as transformers runs them, from the waveform on: what `convert/compare.py` compares with.

One class per kind of model; each says where its library and ours define a quantity alike.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.storage import opened

Found = tuple[np.ndarray | None, np.ndarray]  # frames [T, D], vector [D] of a clip


@dataclasses.dataclass(frozen=True)
class Reference(abc.ABC):
    """A model of transformers with its feature extractor.

    Attributes:
      model: in evaluation mode.
      extractor: waveform → its inputs.
    """

    model: Any
    extractor: Any

    pool = "mean"  # ours that gives its vector

    @property
    def rate(self) -> int:
        """Sampling rate, Hz."""
        return self.extractor.sampling_rate

    @property
    @abc.abstractmethod
    def lengths(self) -> Mapping[str, float]:
        """Names of clips and their lengths, s."""

    @abc.abstractmethod
    def run(self, clips: Sequence[np.ndarray]) -> list[Found]:
        """Return features of clips [S] that are given to it at once."""

    @abc.abstractmethod
    def differs(self, clip: str, together: bool) -> str:
        """Return why ours defines the features of a clip in another way; "": it does not."""


class Speech(Reference):
    """wav2vec 2.0, HuBERT, WavLM, data2vec: whole clips, padding masked where norms are over channels."""

    @property
    def lengths(self) -> Mapping[str, float]:
        """Return lengths up to the 30 s that ours hears whole, and one beyond."""
        return {"short": 1.0, "training": 15.6, "long": 30.0, "longer": 40.0}

    def run(self, clips: Sequence[np.ndarray]) -> list[Found]:
        """Return the last hidden states of a clip's tokens, and their mean."""
        inputs = self.extractor(
            list(clips),
            sampling_rate=self.rate,
            padding=True,
            return_attention_mask=not self._group_norm,
            return_tensors="pt",
        )
        hidden = self.model(**inputs).last_hidden_state.numpy()
        found = []
        for states, clip in zip(hidden, clips, strict=True):
            frames = states[: int(self.model._get_feat_extract_output_lengths(len(clip)))]
            found.append((frames, frames.mean(0)))
        return found

    def differs(self, clip: str, together: bool) -> str:
        """Tell of windows, and of padding that reaches a clip's features."""
        if clip == "longer":
            return "ours: mean of windows of 30 s, half apart; theirs: the clip whole"
        if together:
            if self._group_norm:
                return "ours: as the clip alone; theirs: padding counts in the norm and is attended"
            if self.model.config.model_type == "data2vec-audio":
                return "ours: as the clip alone; theirs: padding reaches it by the position convolutions"
        return ""

    @property
    def _group_norm(self) -> bool:
        """Whether the convolutions have group norms: as published, trained without a mask."""
        return getattr(self.model.config, "feat_extract_norm", "layer") == "group"


class Ast(Reference):
    """AST: every clip is padded or cut to one length."""

    pool = "special"

    @property
    def lengths(self) -> Mapping[str, float]:
        """Return lengths below, at and above the one."""
        hop = self.rate // 100 if _torchaudio() else 160
        training = self.extractor.max_length * hop / self.rate
        return {"short": min(1.0, training / 2), "training": training, "long": 2.5 * training}

    def run(self, clips: Sequence[np.ndarray]) -> list[Found]:
        """Return the patches' last hidden states by time column, and `pooler_output`."""
        inputs = self.extractor(list(clips), sampling_rate=self.rate, return_tensors="pt")
        found = self.model(**inputs)
        config = self.model.config
        rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        patches = found.last_hidden_state[:, 2:].numpy()
        count, _, width = patches.shape
        frames = patches.reshape(count, rows, -1, width).swapaxes(1, 2)
        frames = frames.reshape(count, -1, rows * width)
        return list(zip(frames, found.pooler_output.numpy(), strict=True))

    def differs(self, clip: str, together: bool) -> str:
        """Tell of windows."""
        del together
        if clip == "long":
            return (
                "ours: mean of windows of the training length, half apart; theirs: its begin alone"
            )
        return ""


class Clap(Reference):
    """CLAP: one vector; longer clips are cut at random."""

    @property
    def lengths(self) -> Mapping[str, float]:
        """Return lengths below, at and above the one."""
        training = self.extractor.nb_max_samples / self.rate
        return {"short": min(1.0, training / 3), "training": training, "long": 2.5 * training}

    def run(self, clips: Sequence[np.ndarray]) -> list[Found]:
        """Return no frames, and the unit vector."""
        import torch

        inputs = self.extractor(list(clips), sampling_rate=self.rate, return_tensors="pt")
        # Of clips none of which is longer it marks one, at random.
        longer = [[len(clip) > self.extractor.nb_max_samples] for clip in clips]
        inputs["is_longer"] = torch.tensor(longer)
        if hasattr(self.model, "get_audio_features"):
            found = self.model.get_audio_features(**inputs)
            vectors = getattr(found, "pooler_output", found)
        else:
            vectors = self.model(**inputs).audio_embeds
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        return [(None, vector) for vector in vectors.numpy()]

    def differs(self, clip: str, together: bool) -> str:
        """Tell of windows."""
        del together
        if clip == "long":
            return (
                "ours: mean of windows of the training length, half apart; theirs: a part at random"
            )
        return ""


class Whisper(Reference):
    """Whisper: the encoder hears 30 s, silence after a shorter clip, whose frames alone count here."""

    @property
    def lengths(self) -> Mapping[str, float]:
        """Return lengths below, at and above the one."""
        whole = self.extractor.n_samples / self.rate
        return {"short": 1.0, "half": whole / 2, "training": whole, "long": 2.5 * whole}

    def run(self, clips: Sequence[np.ndarray]) -> list[Found]:
        """Return the encoder's last hidden states of a clip's own tokens, and their mean."""
        inputs = self.extractor(list(clips), sampling_rate=self.rate, return_tensors="pt")
        hidden = self.model.encoder(inputs.input_features).last_hidden_state.numpy()
        found = []
        for states, clip in zip(hidden, clips, strict=True):
            # Of frames centred every hop the published code drops the last, where there is no sound left.
            tokens = -(-(len(clip) // self.extractor.hop_length) // 2)
            frames = states[:tokens]
            found.append((frames, frames.mean(0)))
        return found

    def differs(self, clip: str, together: bool) -> str:
        """Tell of windows."""
        del together
        if clip == "long":
            return "ours: mean of windows of 30 s, half apart; theirs: its begin alone"
        return ""


# model_type → our family, the class here, that of transformers.
KINDS: Mapping[str, tuple[str, type[Reference], str]] = {
    "audio-spectrogram-transformer": ("hf_ast", Ast, "ASTModel"),
    "clap": ("clap", Clap, "ClapModel"),
    "clap_audio_model": ("clap", Clap, "ClapAudioModelWithProjection"),
    "data2vec-audio": ("hf_data2vec", Speech, "Data2VecAudioModel"),
    "hubert": ("hf_hubert", Speech, "HubertModel"),
    "wav2vec2": ("hf_wav2vec2", Speech, "Wav2Vec2Model"),
    "wavlm": ("hf_wavlm", Speech, "WavLMModel"),
    "whisper": ("whisper", Whisper, "WhisperModel"),
}


def load(folder: pathlib.Path) -> tuple[str, Reference]:
    """Return the family of a folder of transformers, and its model.

    Raises:
      FileNotFoundError: no such folder, or no config or feature extractor in it.
      ValueError: transformers has no such model, or ours has none.
      RuntimeError: torch or transformers is not installed.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"--check {folder}: no config.json; wanted the folder of a model of transformers."
        )
    kind = opened.json_file(file, "the config of a model of transformers").get("model_type")
    if kind not in KINDS:
        raise ValueError(
            f"--check {folder}: model_type {kind!r} cannot be compared from the waveform on: the "
            f"reference library, transformers, has none, or ours has no such family. Wanted one of "
            f"{', '.join(KINDS)}. For another family: `ssl-audio convert --from FAMILY … --check`."
        )
    if not any(
        (folder / n).is_file() for n in ("preprocessor_config.json", "processor_config.json")
    ):
        raise FileNotFoundError(
            f"--check {folder}: no preprocessor_config.json: what the model hears of a waveform is "
            "not said. Save the feature extractor beside the model."
        )
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise RuntimeError(f"--check: {error}: pip install 'ssl_audio[torch]'") from None
    transformers.logging.set_verbosity_error()
    family, made, name = KINDS[kind]
    # Neither file may name code: of attention (`kernels` would fetch and run it) or beside the weights.
    own = dict(local_files_only=True, trust_remote_code=False)
    found = getattr(transformers, name).from_pretrained(folder, attn_implementation="eager", **own)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **own)
    return family, made(found.float().eval(), extractor)


def _torchaudio() -> bool:
    from transformers.utils import is_speech_available

    return is_speech_available()
