"""SLAP (Guinot et al. 2025, arXiv:2506.17815): audio and text in one space without negatives.

Run:      ssl-audio train --config slap:data=CAPTIONS.jsonl --workdir runs/slap
Laptop:   ssl-audio train --config slap:laptop,root=ESC-10,fold=5 --workdir runs/slap10
Try:      ssl-audio train --config slap:runlocal --workdir runs/try
Data:     as configs/clap.py
Options:  inter=0.5 (1: between modalities only, which collapses)  encoder, text: as configs/clap.py
Results:  experiments/slap/README.md
"""

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.presets import audio_text, runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

RATE = 44_100


def get_config(arg=""):
    a = parse_arg(
        arg, size="base", data="synthetic", root="", fold=5, encoder="cnn", text="words", inter=0.5,
        laptop=False, runlocal=False,
    )  # fmt: skip
    if a.laptop or a.runlocal:
        a.refuse("size data", "laptop and runlocal set it")
        if a.runlocal:
            a.refuse("root fold", "runlocal is on synthetic sounds")
        config = audio_text.laptop(
            kind="siamese",
            root=a.root,
            fold=a.fold,
            encoder=a.encoder,
            text=a.text,
            predictor=dict(kind="projectors:Byol", out=128, hidden=512, norm=True),
            inter=a.inter,
            decay=0.95,
        )
        config.steps = "200ep"  # without negatives it takes several times CLAP's steps
        if a.runlocal:
            config.evals = {}
        return audio_text.runlocal(config) if a.runlocal else config
    a.refuse("root fold encoder text", "it is for laptop and runlocal")
    projector = dict(kind="projectors:Byol", out=512, hidden=512, norm=False)
    audio = audio_text.htsat(a.size, rate=RATE, hop=441, high=14_000.0)
    text = audio_text.text_tower("roberta", pooler=True)
    return runs.run(
        objective=dict(
            kind="siamese",
            towers=dict(
                audio=audio | dict(projector=projector), text=text | dict(projector=projector)
            ),
            predictor=dict(kind="projectors:Byol", out=512, hidden=4096, norm=True),
            edges=(("audio", "text", 1.0),),
            inter=a.inter,
            decay=0.95,
        ),
        data=dict(
            sources=dict(captions=audio_text.captioned(a.data, RATE)),
            batch_size=768,
            entries=dict(
                audio=entries.audio(10 * RATE, fill="repeatpad"),
                text=audio_text.caption_words(a.data, text, 128),
            ),
            rate=RATE,
        ),
        optim=Optim(lr=4e-4, warmup="10%", schedule="cosine", clip=3.0),
        steps="60ep",
        checkpoint=Checkpoint(every="2%"),
        record=Record(every=50, figures="0"),
    )
