"""ReCLAP (Ghosh et al. 2025, arXiv:2409.09213): CLAP on captions rewritten to describe the sound itself.

Run:      ssl-audio train --config reclap:data=CAPTIONS.jsonl --workdir runs/reclap
Laptop:   ssl-audio train --config reclap:laptop,root=ESC-10,fold=5 --workdir runs/r10
Try:      ssl-audio train --config reclap:runlocal --workdir runs/try
Data:     a manifest with path, text and rewrites (a list per clip; configs/reclap.py never calls a language
          model); the laptop run takes its rewrites from the bank "esc" (data/banks)
Options:  original=0.4 (share of captions that are not rewritten)  encoder, text: as configs/clap.py
Results:  experiments/reclap/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.presets import audio_text, runs
from ssl_audio.presets.text import FLAN_LARGE, t5
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

RATE = 48_000


def get_config(arg=""):
    a = parse_arg(
        arg, size="base", data="synthetic", root="", fold=5, encoder="cnn", text="words",
        original=0.4, laptop=False, runlocal=False,
    )  # fmt: skip
    loss: dict[str, Any] = dict(
        temperature=0.07, max_scale=100.0, per_direction=False, positives="pairs"
    )
    if a.laptop or a.runlocal:
        a.refuse("size data", "laptop and runlocal set it")
        if a.runlocal:
            a.refuse("root fold", "runlocal is on synthetic sounds")
        config = audio_text.laptop(
            kind="contrastive", root=a.root, fold=a.fold, encoder=a.encoder, text=a.text, **loss
        )
        config.data.entries.text.captions = dict(
            kind="captions:Rewritten",
            captions=config.data.entries.text.captions.to_dict(),
            original=a.original,
            bank="esc",
        )
        if a.root:
            config.evals.described = config.evals.zero_shot.to_dict() | dict(bank="esc")
        if a.runlocal:
            config.evals = {}
        return audio_text.runlocal(config) if a.runlocal else config
    a.refuse("root fold encoder text", "it is for laptop and runlocal")
    projector = dict(kind="projectors:Laion", out=512)
    audio = audio_text.htsat(a.size, rate=RATE, hop=480, high=14_000.0)
    text: dict[str, Any] = dict(kind="towers:Tower", length="text_length", frozen=False)
    text |= t5(activation="gated-gelu", **FLAN_LARGE)
    words = audio_text.caption_words(a.data, text, 77)
    words["captions"] = dict(
        kind="captions:Rewritten", captions=words["captions"], original=a.original, bank=""
    )
    return runs.run(
        objective=dict(
            kind="contrastive",
            towers=dict(
                audio=audio | dict(projector=projector), text=text | dict(projector=projector)
            ),
            edges=(("audio", "text", 1.0),),
            **loss,
        ),
        data=dict(
            sources=dict(captions=audio_text.captioned(a.data, RATE)),
            batch_size=256,
            entries=dict(audio=entries.audio(10 * RATE, fill="repeatpad"), text=words),
            rate=RATE,
        ),
        optim=Optim(lr=5e-4, warmup=3200, schedule="cosine"),
        steps="30ep",
        checkpoint=Checkpoint(every="2%"),
        record=Record(every=50, figures="0"),
    )
