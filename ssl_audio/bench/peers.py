"""The same work here and with other libraries, each written as its users write it (`bench peers`).

The other library comes first in its group, so a ratio below 1 says how much faster we are. What is not
installed is left out by name.
"""

import argparse
import functools
import importlib.util
import itertools
import logging
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio import config
from ssl_audio.bench import encoders
from ssl_audio.bench.measure import Row
from ssl_audio.convert import from_state_dict
from ssl_audio.data.entries import Audio
from ssl_audio.data.listing import audio_files
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.reading import examples
from ssl_audio.frontend.fbank import Fbank
from ssl_audio.inference.encoder import FINAL, Encoder
from ssl_audio.inference.inputs import Paths
from ssl_audio.inference.pooling import Pooled
from ssl_audio.presets.patch_encoders import SIZES

log = logging.getLogger(__name__)
RATE = 16_000
SECONDS = 10  # of a clip
TOGETHER = 16  # clips in a batch
POVEY = 0.85  # power of the Hann window that is Kaldi's
SPECIALS = 2  # tokens of AST that are no patches: cls and distillation


def rows(args: argparse.Namespace) -> list[Row]:
    """Return the rows of the parts that were asked for.

    Raises:
      ValueError: no such part.
    """
    parts: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
        "embed": embedding, "frontend": front_end, "input": reading_files, "step": training_steps,
    }  # fmt: skip
    asked = args.part.split(",")
    if unknown := [name for name in asked if name not in parts]:
        raise ValueError(f"--part: got '{unknown[0]}', wanted some of {', '.join(parts)}.")
    return [row for name in asked for row in parts[name](args)]


def _missing(*modules: str) -> bool:
    """Tell whether a peer is not installed, and say so."""
    absent = [name for name in modules if not importlib.util.find_spec(name)]
    if absent:
        names = ", ".join(name.replace("_", "-") for name in absent)
        log.warning("left out, not installed: %s. Try pip install 'ssl_audio[peers]'", names)
    return bool(absent)


def _clips(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(RATE * SECONDS)).astype(np.float32) for _ in range(count)]


# Embedding: an AST with the same random weights on both sides.


def embedding(args: argparse.Namespace) -> list[Row]:
    """Return the rows of one clip, 16 clips, and a folder, with transformers' ASTModel and ours."""
    if _missing("torch", "transformers"):
        return []
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    width, depth, heads, _ = SIZES[args.size]
    sizes = dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
    torch.manual_seed(0)
    theirs: Any = ASTModel(ASTConfig(**sizes, intermediate_size=4 * width)).eval()
    extractor = ASTFeatureExtractor()
    encoder = _ours(theirs, heads)

    def embed(clips: Sequence[np.ndarray]) -> np.ndarray:
        inputs = extractor(list(clips), sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            hidden = theirs(**inputs).last_hidden_state
        return hidden[:, SPECIALS:].mean(dim=1).numpy()

    found, clips = [], _clips(TOGETHER)
    _say_difference("embedding", embed(clips[:1]), encoder.embed(clips[:1], RATE))
    for count in (1, TOGETHER):
        some, what = clips[:count], f"embed {count} x {SECONDS} s"
        inputs = extractor(list(some), sampling_rate=RATE, return_tensors="pt")

        def model_alone(inputs=inputs):
            with torch.inference_mode():
                theirs(**inputs)

        calls = {
            "transformers, model alone": model_alone,
            "transformers": lambda some=some: embed(some),
            "ssl_audio": lambda some=some: encoder.embed(some, RATE),
        }
        found += [_row(what, by, call, args.size, count) for by, call in calls.items()]
    files = _files(args)
    found += [
        _row("embed a folder", "transformers", lambda: _each(files, embed), args.size, len(files)),
        _row("embed a folder", "ssl_audio", lambda: _stream(files, encoder), args.size, len(files)),
    ]
    return found


def _ours(model: Any, heads: int) -> Encoder:
    """Return an AST of transformers as our encoder."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    made = from_state_dict("hf_ast", state, num_attention_heads=heads)
    objective = config.build(made.config["objective"], "objectives")
    return Encoder(objective, made.params, made.config)


def _each(files: Sequence[pathlib.Path], embed: Callable) -> list[np.ndarray]:
    """Embed files as one does with transformers: read, resample, 16 at a time."""
    found = []
    for start in range(0, len(files), TOGETHER):
        found += list(embed([_read(path) for path in files[start : start + TOGETHER]]))
    return found


def _stream(files: Sequence[pathlib.Path], encoder: Encoder) -> list[np.ndarray]:
    """Embed files as `ssl-audio embed` does."""
    source = Paths(tuple(map(str, files)), encoder.rate)
    clips = (example["audio"] for _, example in examples(source))
    found = dict(encoder.stream(clips, (FINAL,), lambda _: Pooled(encoder.rows, "mean")))
    return [found[i][0] for i in range(len(files))]


# The front end: log-mel energies of 16 clips.


def front_end(args: argparse.Namespace) -> list[Row]:
    """Return the rows of 80 mel bands with kaldi-native-fbank, of 128 with ASTFeatureExtractor.

    The latter takes torchaudio where it is installed, else NumPy.
    kaldi-native-fbank refuses 128 bands at 16 kHz, since the lowest ones hold no line of the FFT.
    """
    del args
    clips = _clips(TOGETHER)
    batch = jax.device_put(np.stack(clips))
    peers: dict[int, tuple[str, Callable[[], Any]]] = {}
    if not _missing("kaldi_native_fbank"):
        peers[80] = "kaldi-native-fbank", lambda: [_kaldi(clip) for clip in clips]
    if not _missing("torch", "transformers"):
        from transformers import ASTFeatureExtractor

        extractor = ASTFeatureExtractor()
        options = dict(sampling_rate=RATE, return_tensors="np")
        peers[128] = "ASTFeatureExtractor", lambda: extractor(clips, **options)
    found = []
    for bands in (80, 128):
        what = f"front end, {TOGETHER} x {SECONDS} s, {bands} bands"
        if bands in peers:
            by, call = peers[bands]
            found.append(_row(what, by, call, "", TOGETHER))
        program = jax.jit(Fbank(bins=bands, taper=POVEY).log_mel)

        def ours(program=program):
            return program(batch).block_until_ready()

        if bands == 80 and bands in peers:
            _say_difference("front end", _kaldi(clips[0]), np.asarray(ours())[0])
        found.append(_row(what, "ssl_audio", ours, "", TOGETHER))
    return found


def _kaldi(clip: np.ndarray) -> np.ndarray:
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = 0.0  # the Nyquist frequency
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(RATE, clip.tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


# Input: batches of clips from files.


def reading_files(args: argparse.Namespace) -> list[Row]:
    """Return the rows of an epoch over files: PyTorch's DataLoader, and our pipeline.

    Both read in this process, since the time of others is not seen; ours also with threads.
    """
    files, samples = _files(args), RATE * SECONDS
    batches = len(files) // TOGETHER

    def epoch(threads: int) -> None:
        source = Paths(tuple(map(str, files)), RATE)
        entries = dict(audio=Audio(samples))
        pipeline = Pipeline({"files": source}, TOGETHER, entries, threads=threads)
        for _ in itertools.islice(pipeline.batches(), batches):
            pass

    calls: dict[str, Callable[[], Any]] = {}
    if not _missing("torch"):
        from torch.utils.data import DataLoader

        loader = DataLoader(_Clips(files, samples), TOGETHER, shuffle=True, drop_last=True)  # pyright: ignore[reportArgumentType]
        calls["DataLoader, soundfile and soxr"] = lambda: [None for _ in loader]
    calls["ssl_audio"] = lambda: epoch(0)
    calls["ssl_audio, 8 threads"] = lambda: epoch(8)
    what = f"read {batches * TOGETHER} files"
    return [_row(what, by, call, "", batches * TOGETHER) for by, call in calls.items()]


class _Clips:
    """A data set of PyTorch: files, resampled, cut at random or padded to one length."""

    def __init__(self, files: Sequence[pathlib.Path], samples: int):
        self.files, self.samples, self.rng = files, samples, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> np.ndarray:
        audio = _read(self.files[i])
        start = self.rng.integers(max(1, len(audio) - self.samples + 1))
        audio = audio[start : start + self.samples]
        return np.pad(audio, (0, self.samples - len(audio)))


# Training steps: what `bench step --torch` times.


def training_steps(args: argparse.Namespace) -> list[Row]:
    """Return the rows of steps of encoders, with PyTorch eager and compiled, and ours."""
    found = []
    for name in args.encoder.split(","):
        built = encoders.config_of(name, args.size, args.frames // 16, args.depth)
        built |= dict(dtype="float32", remat="dots")
        # A recurrence in Python is unrolled by the compiler, which takes it many minutes.
        compiled = bool(built["block"]["mixer"].get("heads")) and not _missing("torch")
        options = argparse.Namespace(
            batch=args.batch, frames=args.frames, dtype="float32", compile=compiled
        )
        ours, *theirs = encoders.fitted(name, args.size, built, options)
        for row in (*theirs, ours):
            by = str(row.labels["pass"]).removeprefix("fit").strip(", ") or "ssl_audio"
            found.append(_row(f"step of {name}", by, row.call, args.size, args.batch))
    return found


def _row(what: str, by: str, call: Callable[[], Any], size: str, items: int) -> Row:
    return Row({"what": what, "by": by, "size": size}, call, (what, size), items=items)


def _say_difference(what: str, theirs: np.ndarray, ours: np.ndarray) -> None:
    log.info("%s: they differ by %.2g at most", what, np.abs(theirs - ours).max())


def _read(path: pathlib.Path) -> np.ndarray:
    import soundfile
    import soxr

    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(audio.mean(axis=1), rate, RATE)


@functools.cache
def _synthetic() -> tempfile.TemporaryDirectory:
    """Return a folder of noise: 32 files of 5 s at 44.1 kHz."""
    import soundfile

    folder, rng = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    for number in range(32):
        noise = 0.1 * rng.standard_normal(5 * 44_100).astype(np.float32)
        soundfile.write(pathlib.Path(folder.name) / f"{number}.wav", noise, 44_100)
    return folder


def _files(args: argparse.Namespace) -> list[pathlib.Path]:
    """Return so many files of the folder as were asked for.

    Raises:
      ValueError: there are fewer than a batch.
    """
    folder = pathlib.Path(args.data or _synthetic().name).expanduser()
    found = sorted(audio_files(folder))[: args.files]
    if len(found) < TOGETHER:
        raise ValueError(
            f"--data {folder}, --files {args.files}: {len(found)} audio files; wanted {TOGETHER} or more."
        )
    return found
