"""Sound through transformers' EncodecModel and through the same weights here: codes, and the ratio in dB.

python experiments/codec/transformers_snr.py --sounds FOLDER [--count 5]
Takes torch and transformers. The weights are random; both get the same samples, at 24 kHz and one channel.
"""

import argparse
import pathlib
import tempfile

import librosa
import numpy as np
import torch
import transformers

import ssl_audio
from ssl_audio.convert import command

RATE, KBPS = 24_000, 6.0


def main():
    """Compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sounds", type=pathlib.Path, required=True, help="folder of sound files")
    parser.add_argument("--count", type=int, default=5, help="files to compare")
    args = parser.parse_args()
    torch.manual_seed(0)
    theirs = transformers.EncodecModel(transformers.EncodecConfig()).eval()
    for name, buffer in theirs.named_buffers():  # as made, all entries of a book are 0
        if name.endswith("embed"):
            buffer.normal_(std=0.1)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(f"{folder}/theirs")
        command.main(
            ["--from", "encodec", "--checkpoint", f"{folder}/theirs", "--out", f"{folder}/ours"]
        )
        ours = ssl_audio.load(f"{folder}/ours")
    files = sorted(args.sounds.iterdir())[: args.count]
    if not files:
        parser.error(f"--sounds {args.sounds}: no file in it.")
    for file in files:
        sound, _ = librosa.load(file, sr=RATE)
        with torch.no_grad():
            made = theirs.encode(torch.from_numpy(sound)[None, None], bandwidth=KBPS)
            decoded = theirs.decode(made.audio_codes, made.audio_scales)[0]
        wanted = decoded.numpy().ravel()[: len(sound)]
        codes = ours.encode(sound, RATE, kbps=KBPS)
        found = ours.decode(codes)
        same = np.mean(codes.chunks[0].T == made.audio_codes.numpy()[0, 0])
        ratio = 10 * np.log10(np.sum(wanted**2) / np.sum((found - wanted) ** 2))
        print(f"{file.name}: codes that are the same {same:.4f}, {ratio:.1f} dB")


if __name__ == "__main__":
    main()
