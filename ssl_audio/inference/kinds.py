"""The kinds of trained models in words: which one a command wants, and which one it got."""

from collections.abc import Callable
from typing import Any, NamedTuple

# Class of a loaded model → what it is. One that is none of these, nor of their kind, is its objective's name.
WHAT = {
    "Encoder": "an encoder of sound",
    "Classifier": "a classifier",
    "Captioner": "a model of captions",
    "CodecModel": "a codec",
    "DiffusionModel": "a model that generates sound",
    "Generator": "a model that generates sound",
    "Separator": "a separator",
    "SequenceModel": "a model of lists",
}
PARTS = {"audio": "sound", "text": "words", "image": "pictures"}


class Kind(NamedTuple):
    """A kind of model that commands ask for.

    Attributes:
      words: what it is.
      come: how one comes about.
      fits: whether a loaded model is one.
    """

    words: str
    come: str
    fits: Callable[[Any], bool]


def _does(*names: str) -> Callable[[Any], bool]:
    return lambda model: all(hasattr(type(model), name) for name in names)


def _offers(*names: str) -> Callable[[Any], bool]:
    return lambda model: set(names) <= set(getattr(model, "offers", ()))


KINDS = {
    "encoder": Kind(
        "an encoder of sound", "a pretraining run, or `ssl-audio convert`", _does("embed", "readout")
    ),
    "classifier": Kind(
        "a classifier",
        "`ssl-audio finetune`, or `ssl-audio evaluate --save` on an encoder",
        _does("scores", "labels"),
    ),
    "events": Kind(
        "a classifier",
        "`ssl-audio finetune`, or a run of config events; of config finelap with --query",
        _does("scores", "labels"),
    ),
    "captioner": Kind("a model of captions", "a run of config caption", _does("caption")),
    "generator": Kind(
        "a model that generates sound", "a run of config audiogen or diffusion", _does("generate")
    ),
    "separator": Kind(
        "a separator", "a run of config uss, or `ssl-audio convert --from uss`", _does("of_classes")
    ),
    "codec": Kind(
        "a codec",
        "a run of config codec or dac, or `ssl-audio convert --from encodec`",
        _does("encode", "decode"),
    ),
    "sound and words": Kind(
        "a model of sound and words",
        "a run of config clap, or `ssl-audio convert --from clap`",
        _offers("embed_audio", "embed_text"),
    ),
    "filter": Kind(
        "a model of sound and words, or a classifier",
        "`ssl-audio convert --from clap`, or `ssl-audio finetune`",
        lambda model: {"embed_audio", "logits"} & set(model.offers) != set(),
    ),
    "pictures and words": Kind(
        "a model of pictures and words in one space",
        "`ssl-audio convert --from clip`",
        lambda model: {"image", "text"} <= set(getattr(model, "takes", ())),
    ),
    "words": Kind(
        "a model of words", "`ssl-audio convert --from clap` or `minilm`", _offers("embed_text")
    ),
    "when": Kind(
        "a model that was trained to say when words are heard",
        "a run of config finelap",
        lambda model: hasattr(model.objective, "queried"),
    ),
    "towers": Kind(
        "a model of several modalities",
        "a run of config clap, vatt or viml",
        lambda model: hasattr(model.objective, "towers"),
    ),
}  # fmt: skip


def check(model: Any, kind: str, where: str = "") -> Any:
    """Return a model that is of a kind.

    Args:
      model: what `ssl_audio.load` returned.
      kind: one of `KINDS`.
      where: what named it, as "--checkpoint RUN".

    Raises:
      ValueError: it is another: what is wanted, how one comes about, and what this one is.
    """
    if not KINDS[kind].fits(model):
        raise refusal(model, kind, where)
    return model


def refusal(model: Any, kind: str, where: str = "") -> ValueError:
    """Return the error that says which kind is wanted, and which this model is."""
    wanted = KINDS[kind]
    return ValueError(
        f"{where or getattr(model, 'origin', '') or 'model'}: wanted {wanted.words} ({wanted.come}); got "
        f"{told(model)}."
    )


def told(model: Any) -> str:
    """Return what a model is, and what it offers."""
    objective: Any = getattr(model, "objective", model)
    if hasattr(objective, "towers"):
        parts = [PARTS.get(name) or str(name) for name in objective.towers]
        what = " and ".join(["a model of " + ", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])
    else:
        known = (WHAT[one.__name__] for one in type(model).__mro__ if one.__name__ in WHAT)
        what = next(known, f"a {type(objective).__name__}")
    return f"{what}, which offers {', '.join(getattr(model, 'offers', ())) or 'nothing'}"
