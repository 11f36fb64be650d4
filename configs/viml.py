"""ViML (McKee et al. 2023, arXiv:2306.09327): music for a video, led by words; either may be missing.

Run:      ssl-audio train --config viml:data=CLIPS.csv,encoder=RUN --workdir runs/viml
Laptop:   ssl-audio train --config viml:laptop,data=CLIPS.csv,test=TEST.csv --workdir runs/viml
Try:      ssl-audio train --config viml:runlocal --workdir runs/try
Data:     a manifest with path (music), text, and video (FILE.npy or FILE.npy#ROW: features of its frames);
          default: synthetic sounds and features
Options:  encoder=RUN or htsat: what hears music, frozen; dropout=0.5: share of the queries without words;
          width=512: of the video's features; frames=64
Results:  experiments/viml/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import video_music


def get_config(arg=""):
    a = parse_arg(
        arg,
        data="synthetic",
        encoder="htsat",
        size="base",
        dropout=0.5,
        width=512,
        frames=64,
        test="",
        laptop=False,
        runlocal=False,
    )
    made = video_music.sizes(a)
    inner = made.width
    video = video_music.video_tower(a, made) | dict(
        projector=dict(kind="projectors:OneLayer", out=inner)
    )
    text = made.text | dict(projector=dict(kind="projectors:OneLayer", out=inner))
    query: dict[str, Any] = dict(
        kind="fusion:Fused",
        towers=dict(video=video, text=text),
        encoder=video_music.transformer(inner, depth=made.depth, heads=made.heads),
        pool=dict(kind="pools:Mean"),
        projector=dict(kind="projectors:OneLayer", out=made.out),
        dropout=dict(text=a.dropout) if a.dropout else dict(),
    )
    audio = made.audio | dict(projector=dict(kind="projectors:Laion", out=made.out))
    objective = dict(
        kind="contrastive",
        towers=dict(audio=audio, query=query),
        edges=(("query", "audio", 1.0),),
        temperature=0.07,
        max_scale=100.0,
        per_direction=False,
        positives="pairs",
    )
    asked = ("video", "text", "video+text")
    return video_music.run(a, made, objective, asked=asked, words=True)
