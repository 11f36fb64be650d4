"""Write the clips of a folder in 32 formats, a folder each: python convert.py CLIPS OUT --clips 40

Takes ffmpeg and sox (with all its formats). The folder `wav` is what all others are made from.
"""

import argparse
import pathlib
import subprocess

PICTURE = "-f lavfi -i color=c=blue:s=64x48:r=10".split()
# Folder → ending, and the options of ffmpeg, or "sox".
FORMATS = {
    "wav": ("wav", "-c:a pcm_s16le"),
    "wav-24": ("wav", "-c:a pcm_s24le"),
    "wav-float": ("wav", "-c:a pcm_f32le"),
    "wav-adpcm": ("wav", "-c:a adpcm_ms"),
    "wav-pipe": ("wav", "-c:a pcm_s16le -f wav pipe:"),
    "aiff": ("aiff", ""),
    "au": ("au", ""),
    "caf": ("caf", ""),
    "w64": ("w64", ""),
    "rf64": ("rf64", "-f wav -rf64 always"),
    "voc": ("voc", ""),
    "nist": ("sph", "sox"),
    "paf": ("paf", "sox"),
    "mat5": ("mat5", "sox"),
    "ircam": ("sf", "sox"),
    "flac": ("flac", ""),
    "flac-pipe": ("flac", "-f flac pipe:"),
    "oga-flac": ("oga", "-c:a flac"),
    "ogg-vorbis": ("ogg", "-c:a libvorbis -q:a 5"),
    "opus": ("opus", "-c:a libopus -b:a 96k"),
    "mp3-vbr": ("mp3", "-c:a libmp3lame -q:a 3"),
    "mp3-no-xing": ("mp3", "-c:a libmp3lame -b:a 128k -write_xing 0"),
    "mp2": ("mp2", ""),
    "m4a-aac": ("m4a", "-c:a aac -b:a 128k"),
    "m4a-alac": ("m4a", "-c:a alac"),
    "aac-adts": ("aac", "-c:a aac -b:a 128k"),
    "mp4-picture": ("mp4", "PICTURE -c:a aac -b:a 128k -c:v mpeg4 -shortest"),
    "mkv-picture": ("mkv", "PICTURE -c:a libvorbis -q:a 5 -c:v mpeg4 -shortest"),
    "webm-opus": ("webm", "-c:a libopus -b:a 96k"),
    "wma": ("wma", "-c:a wmav2 -b:a 128k"),
    "ac3": ("ac3", "-b:a 192k"),
    "wavpack": ("wv", ""),
}


def convert(source: pathlib.Path, target: pathlib.Path, options: str) -> None:
    """Write one file; RuntimeError with the program's words if it fails."""
    if options == "sox":
        command = ["sox", str(source), str(target)]
    else:
        more = options.split()
        picture = PICTURE if "PICTURE" in more else []
        more = [option for option in more if option not in ("PICTURE", "pipe:")]
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(source), *picture, *more]
        command.append("pipe:" if "pipe:" in options else str(target))
    piped = command[-1] == "pipe:"  # a stream cannot go back to write its length
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
    if piped:
        target.write_bytes(done.stdout)


def main() -> None:
    """Convert the first clips of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--clips", dest="count", type=int, default=40)
    args = parser.parse_args()
    files = sorted(path for path in args.clips.iterdir() if path.is_file())
    chosen = files[:: max(1, len(files) // args.count)][: args.count]
    for name, (ending, options) in FORMATS.items():
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for clip in chosen:
            # Everything but the reference is made from the reference.
            source = clip if name == "wav" else args.out / "wav" / f"{clip.stem}.wav"
            target = folder / f"{clip.stem}.{ending}"
            if not target.exists():
                convert(source, target, options)
    print(f"{len(chosen)} clips in {len(FORMATS)} formats: {args.out}")


if __name__ == "__main__":
    main()
