"""Control-MVR (arXiv:2412.05831): music for a video, by the very clip or by its genre, as much as you like.

Run:      ssl-audio train --config control_mvr:data=CLIPS.csv,encoder=RUN,classes=32 --workdir runs/mvr
Laptop:   ssl-audio train --config control_mvr:laptop,data=CLIPS.csv,test=TEST.csv --workdir runs/mvr
Try:      ssl-audio train --config control_mvr:runlocal --workdir runs/try
Data:     a manifest with path (music), label (genre), and video (FILE.npy or FILE.npy#ROW: features of its
          frames); default: synthetic sounds and features
Options:  encoder=RUN or htsat: what hears music, frozen; classes=12: genres; width=512: of the video's
          features; frames=64
Results:  experiments/control_mvr/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import video_music

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def get_config(arg=""):
    a = parse_arg(
        arg,
        data="synthetic",
        encoder="htsat",
        size="base",
        classes=12,
        width=512,
        frames=64,
        test="",
        laptop=False,
        runlocal=False,
    )
    made = video_music.sizes(a)
    head = dict(kind="projectors:Laion", out=made.out)
    branches: dict[str, Any] = dict(
        projector=dict(kind="projectors:Branches", branches={"class": head, "pair": head})
    )
    objective = dict(
        kind="contrastive",
        towers=dict(audio=made.audio | branches, video=video_music.video_tower(a, made) | branches),
        edges=(("audio/pair", "video/pair", 1.0), ("audio/class", "video/class", 1.0)),
        temperature=0.07,
        max_scale=100.0,
        per_direction=False,
        positives="pairs",
        compare={"audio/class-video/class": dict(kind="pair_losses:SupCon")},
    )
    return video_music.run(a, made, objective, asked=("video",), alphas=ALPHAS, classes=a.classes)
