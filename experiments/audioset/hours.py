"""Print what AudioSet runs would take on H100s: python experiments/audioset/hours.py [NAME …]

The matrix products of a step are counted as `ssl-audio preview --no-compile` does. The share of a device's
peak that runs reach is assumed, not measured.
"""

import sys

from ssl_audio import config, config_files
from ssl_audio.train.flops import peak
from ssl_audio.train.preview import preview

CLIPS = 1_910_000  # excerpts of AudioSet-2M that are still to be had
SHARES = (0.25, 0.4, 0.5)  # of the peak
VIT = "encoder=vit,size=base,patch=16x16,stride=16x16,root=AUDIOSET"
# Name → config, and the clips that the run hears.
RUNS = {
    "eat": ("eat", 400_000 * 48),
    "sslam": ("sslam", 200_000 * 48),
    "audiomosaic": ("audiomosaic", 400 * CLIPS),
    "bat": ("bat", 400_000 * 96),
    "as20k": (f"finetune:task=audioset20k,{VIT}", 25 * 22_000),
    "as2m": (f"finetune:task=audioset2m,{VIT}", 5 * CLIPS),
}


def main() -> None:
    """Print a row per run."""
    chip = peak("NVIDIA H100") or 0.0
    shares = " / ".join(f"{share:.0%}" for share in SHARES)
    print(f"| run | parameters | FLOP a clip | FLOP in all | hours of one H100 at {shares} |")
    print("|---|---|---|---|---|")
    for name in sys.argv[1:] or RUNS:
        place, clips = RUNS[name]
        options = config.plain(config_files.load(place))
        found = preview(options, compiled=False)
        each = found.flops / options["data"]["batch_size"]
        hours = (each * clips / (share * chip) / 3600 for share in SHARES)
        millions = sum(found.parameters.values()) / 1e6
        cells = [name, f"{millions:.1f} M", f"{each:.2e}", f"{each * clips:.1e}"]
        print(f"| {' | '.join([*cells, ' / '.join(f'{h:.1f}' for h in hours)])} |", flush=True)


if __name__ == "__main__":
    main()
