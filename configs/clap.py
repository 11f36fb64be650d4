"""CLAP (Wu et al. 2023, arXiv:2211.06687): audio and text in one space, symmetric InfoNCE.

Run:      ssl-audio train --config clap:data=CAPTIONS.jsonl --workdir runs/clap
Laptop:   ssl-audio train --config clap:laptop,root=ESC-10,fold=5 --workdir runs/clap10
Try:      ssl-audio train --config clap:runlocal --workdir runs/try
Data:     a manifest with columns path, text, … (data/source.py); default: synthetic sounds, labels
Options:  preset=laion|msclap|msclap22  encoder=htsat|cnn14|RUN  size=tiny|base|large (htsat)
          laptop: encoder=cnn|cnn14|ssast|ssamba|RUN  text=words|FOLDER (a text model converted by
          `ssl-audio convert --from minilm …`, then frozen)
          RUN: that has trained an encoder, or a folder of `convert` or `export`, to begin from
Results:  experiments/clap/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.presets import audio_text, runs
from ssl_audio.presets.text import GPT2_BASE as BASE
from ssl_audio.presets.text import gpt2
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

PRESETS: dict[str, dict[str, Any]] = {
    "laion": dict(
        text=audio_text.text_tower("roberta", pooler=True), words=77,
        rate=48_000, hop=480, high=14_000.0, seconds=10,
        projector=dict(kind="projectors:Laion", out=512), batch=2304, lr=1e-4,
        warmup=dict(htsat=3200, cnn14=500), fill="repeatpad", temperature=0.07, encoder="htsat",
    ),
    "msclap": dict(
        text=audio_text.words_tower(**gpt2(**BASE)), words=77,
        rate=44_100, hop=320, high=8_000.0, seconds=7,
        projector=dict(kind="projectors:Msclap", out=1024), batch=1536, lr=1e-3,
        warmup=dict(htsat=0, cnn14=0), fill="repeat", temperature=0.007, encoder="htsat",
    ),
}  # fmt: skip
# The model of 2022 (arXiv:2206.04769); it is trained as that of 2023.
PRESETS["msclap22"] = PRESETS["msclap"] | dict(
    text=audio_text.text_tower("bert", pooler=False) | dict(pool=dict(kind="pools:ClsToken")),
    high=14_000.0, seconds=5, words=100, temperature=0.07, encoder="cnn14",
)  # fmt: skip


def get_config(arg=""):
    a = parse_arg(
        arg, preset="laion", size="tiny", data="synthetic", root="", fold=5, encoder="",
        text="words", laptop=False, shuffled=False, runlocal=False,
    )  # fmt: skip
    if a.laptop or a.runlocal:
        a.refuse("preset size data", "laptop and runlocal set it")
        if a.runlocal:
            a.refuse("root fold", "runlocal is on synthetic sounds")
        config = audio_text.laptop(
            kind="contrastive",
            root=a.root,
            fold=a.fold,
            encoder=a.encoder or "cnn",
            text=a.text,
            temperature=0.07,
            max_scale=100.0,
            per_direction=False,
            positives="pairs",
        )
        if a.shuffled:
            config.data.entries.text.captions = dict(
                kind="captions:Shuffled",
                captions=config.data.entries.text.captions.to_dict(),
                names=audio_text.labels(a.root),
            )
        return audio_text.runlocal(config) if a.runlocal else config
    return published(a)


def published(a):
    a.refuse("root fold text shuffled", "it is for laptop and runlocal")
    if a.preset not in PRESETS:
        raise ValueError(f"preset '{a.preset}': wanted one of {', '.join(PRESETS)}.")
    preset = PRESETS[a.preset]
    encoder = a.encoder or preset["encoder"]
    sound = {name: preset[name] for name in ("rate", "hop", "high")}
    audio = audio_text.published_sound(encoder, a.size, **sound)
    rate = audio["frontend"].get("rate", 16_000)
    text = preset["text"]
    config = runs.run(
        objective=dict(
            kind="contrastive",
            towers=dict(
                audio=audio | dict(projector=preset["projector"]),
                text=text | dict(projector=preset["projector"]),
            ),
            edges=(("audio", "text", 1.0),),
            temperature=preset["temperature"],
            max_scale=100.0,
            per_direction=False,
            positives="pairs",
        ),
        data=dict(
            sources=dict(captions=audio_text.captioned(a.data, rate)),
            batch_size=preset["batch"],
            entries=dict(
                audio=entries.audio(preset["seconds"] * rate, fill=preset["fill"]),
                text=audio_text.caption_words(a.data, text, preset["words"]),
            ),
            rate=rate,
        ),
        optim=Optim(lr=preset["lr"], warmup=preset["warmup"].get(encoder, 0), schedule="cosine"),
        steps="45ep",
        checkpoint=Checkpoint(every="2%"),
        record=Record(every=50, figures="0"),
    )
    if written.is_run(encoder):
        begin = written.warm_start(encoder, into="audio/")
        begin["encoder"]["take"] = "^(tokenizer|encoder|pool)/"
        config.warm_start = begin
    return config
