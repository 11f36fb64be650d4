"""Text towers shaped like BERT: the config subtrees of the published ones and of a small one."""

from typing import Any

# name: (vocabulary, width, depth, heads, hidden width, places, first place, types, eps)
SIZES = {
    "minilm": (30_522, 384, 6, 12, 1536, 512, 0, 2, 1e-12),
    "bert": (30_522, 768, 12, 12, 3072, 512, 0, 2, 1e-12),
    "roberta": (50_265, 768, 12, 12, 3072, 514, 2, 1, 1e-5),
}


def bert(
    *,
    vocab: int,
    width: int,
    depth: int,
    heads: int,
    hidden: int,
    places: int,
    first: int = 0,
    types: int = 1,
    eps: float = 1e-12,
    pooler: bool = False,
) -> dict[str, Any]:
    """Return tokenizer, encoder and pool of a text tower (see `tokens/words.py` for the fields).

    Args:
      vocab, places, first, types: of the tables.
      width, depth, heads, hidden: of the encoder; `hidden` of its MLPs.
      eps: of all norms.
      pooler: the first token through BERT's pooler; else the mean of the words (sentence-transformers).
    """
    norm = dict(kind="norms:LayerNorm", eps=eps)
    return dict(
        tokenizer=dict(
            kind="words", width=width, vocab=vocab, length=places, first=first, types=types, eps=eps
        ),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            block=dict(
                kind="post_norm",
                mixer=dict(kind="attention", heads=heads),
                norm=norm,
                mlp=hidden / width,
            ),
            final_norm=None,
        ),
        pool=dict(kind="pools:BertPooler" if pooler else "pools:Mean"),
    )


def published(name: str, *, pooler: bool = False) -> dict[str, Any]:
    """Return the tower parts of a published size; see `bert`.

    Raises:
      ValueError: no such size.
    """
    if name not in SIZES:
        raise ValueError(f"text '{name}': wanted one of {', '.join(SIZES)}.")
    vocab, width, depth, heads, hidden, places, first, types, eps = SIZES[name]
    return bert(
        vocab=vocab,
        width=width,
        depth=depth,
        heads=heads,
        hidden=hidden,
        places=places,
        first=first,
        types=types,
        eps=eps,
        pooler=pooler,
    )


GPT2_BASE = dict(vocab=50_257, width=768, depth=12, heads=12, length=1024)  # the smallest published

FLAN_LARGE = dict(vocab=32_128, width=1024, depth=24, heads=16, size=64, hidden=2816)


def gpt2(
    *, vocab: int, width: int, depth: int, heads: int, length: int, ratio: float = 4.0
) -> dict[str, Any]:
    """Return tokenizer, encoder and pool of a text tower; its vector is the last word's.

    Args:
      vocab, length: rows of the tables of words and of places.
      width, depth, heads: of the encoder.
      ratio: of its perceptrons' hidden width.
    """
    norm = dict(kind="norms:LayerNorm", eps=1e-5)
    block = dict(
        kind="blocks:PreNorm",
        mixer=dict(kind="attention", heads=heads, causal=True),
        norm=norm,
        mlp=dict(kind="gpt2:TanhMlp", ratio=ratio),
    )
    return dict(
        tokenizer=dict(kind="words:WordsPlaced", width=width, vocab=vocab, length=length),
        encoder=dict(kind="stack", width=width, depth=depth, block=block, final_norm=norm),
        pool=dict(kind="pools:Last"),
    )


def t5(
    *,
    vocab: int,
    width: int,
    depth: int,
    heads: int,
    size: int,
    hidden: int,
    activation: str,
    buckets: int = 32,
    distance: int = 128,
    eps: float = 1e-6,
) -> dict[str, Any]:
    """Return tokenizer, encoder and pool (the mean of the words) of a text tower; see the classes above."""
    norm = dict(kind="norms:RMSNorm", eps=eps)
    return dict(
        tokenizer=dict(kind="words:WordsAlone", width=width, vocab=vocab),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            block=dict(
                kind="blocks:PreNorm",
                mixer=dict(kind="t5:T5Attention", heads=heads, size=size),
                norm=norm,
                mlp=dict(kind="t5:T5Mlp", hidden=hidden, activation=activation),
            ),
            pair_bias=dict(
                kind="relative:RelativeBias", heads=heads, buckets=buckets, distance=distance
            ),
            final_norm=norm,
        ),
        pool=dict(kind="pools:Mean"),
    )
