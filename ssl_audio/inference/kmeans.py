"""Find codes by k-means: ssl-audio kmeans --data DIR --codes 100 --out FOLDER

Of MFCC, or with --checkpoint RUN --layer N of an encoder's layer. FOLDER then gives targets to a run
that predicts codes (HuBERT, arXiv:2106.07447, section II-A). With --clips whole clips are clustered, and
--out is a table, path and label, to train on (UnFuSeD, arXiv:2303.05668).
"""

from __future__ import annotations

import argparse
import logging
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import config, config_files, slots, startup
from ssl_audio.data import places
from ssl_audio.data.entries import clips
from ssl_audio.data.reading import reading
from ssl_audio.inference.pooling import POOLS, SPECIAL
from ssl_audio.storage import written

if TYPE_CHECKING:
    from ssl_audio.inference.encoder import Encoder

log = logging.getLogger("ssl_audio")

WINDOW = 160_000  # samples of MFCC that are taken at a time
MFCC = dict(
    kind="features",
    frontend=dict(kind="mfcc"),
    tokenizer=dict(kind="patchify:Cut", patch=(39, 2), stride=(39, 2)),
    encoder=dict(kind="identity"),
)


def fit(
    encoder: Encoder,
    source: Any,
    codes: int,
    *,
    layer: int = -1,
    vectors: int = 200_000,
    seed: int = 0,
    max_bad_share: float = 0.01,
) -> np.ndarray:
    """Return centroids [codes, D] of the vectors of an encoder's tokens.

    Args:
      encoder: whose tokens.
      source: clips at the encoder's rate.
      codes: number of clusters.
      layer: of the encoder; -1: after the last norm.
      vectors: most that are kept, an equal number of each clip, drawn without replacement.
      seed: of the draws and of k-means.
      max_bad_share: of clips that cannot be read.

    Raises:
      ValueError: no such layer; no tokens along time; fewer vectors than codes; too many unreadable clips.
    """
    encoder.check_layer(layer)
    encoder.times(1)  # an error where there are no tokens along time
    rng = np.random.default_rng(seed)
    most, kept = max(1, vectors // max(1, len(source))), []
    read: list[int] = []
    clips = reading(source, read, desc="clusters", bad={}, max_bad_share=max_bad_share)
    for _, features in encoder.stream(clips, (layer,)):
        x = features[0].reshape(-1, encoder.width)
        kept.append(x[rng.permutation(len(x))[:most]])
    x = np.concatenate(kept) if kept else np.zeros((0, 1), np.float32)
    if len(x) < codes:
        raise ValueError(f"kmeans: {len(x)} vectors for {codes} codes; wanted more clips.")
    return centroids(x, codes, seed)


def centroids(x: np.ndarray, codes: int, seed: int) -> np.ndarray:
    """Return the centres [codes, D] that mini-batch k-means finds for vectors [N, D]."""
    from sklearn.cluster import MiniBatchKMeans

    starts: Any = 3
    found: Any = MiniBatchKMeans(codes, batch_size=10_000, n_init=starts, random_state=seed).fit(x)
    log.info("%d vectors, inertia %.4g per vector", len(x), found.inertia_ / len(x))
    return found.cluster_centers_.astype(np.float32)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio kmeans`."""
    made = startup.parser("kmeans", __doc__)
    given = made.add_mutually_exclusive_group(required=True)
    given.add_argument("--data", metavar="PLACE", help="folder, table, or 'synthetic'")
    given.add_argument(
        "--config", metavar="NAME|FILE[:ARG,…]", help="the clips that this config trains on"
    )
    made.add_argument(
        "--codes", type=int, help="how many; default with --clips: as many as the data has classes"
    )
    made.add_argument("--out", required=True, metavar="FOLDER|TABLE.csv", help="to write")
    made.add_argument("--checkpoint", metavar="RUN", help="whose layer; default: MFCC")
    made.add_argument("--layer", type=int, default=-1, help="0, 1, …; default: the last norm's")
    made.add_argument("--vectors", type=int, default=200_000, help="largest number to cluster")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--clips", action="store_true", help="cluster clips, not tokens; see above")
    made.add_argument(
        "--pool", choices=(*POOLS, SPECIAL), help="with --clips: as embed has it; default: mean"
    )
    made.add_argument(
        "--whiten", type=int, metavar="N", help="with --clips: principal components; default: 128"
    )
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, cluster and write."""
    args = parser().parse_args(argv)
    if args.clips:
        return _clips(args)
    if args.pool is not None or args.whiten is not None:
        parser().error("--pool, --whiten: they go with --clips; tokens are clustered as they are")
    if args.codes is None:
        parser().error("--codes: say how many")
    if args.codes < 1 or args.vectors < args.codes:
        parser().error(
            f"--codes {args.codes} --vectors {args.vectors}: wanted at least 1 code, and "
            "as many vectors as codes"
        )
    from ssl_audio.inference.encoder import Encoder
    from ssl_audio.inference.load import load
    from ssl_audio.storage import atomic, exported

    atomic.check_folder(pathlib.Path(args.out))
    if args.checkpoint:
        encoder = load(args.checkpoint, trust=args.trust).encoder
        with slots.trusting(args.trust):
            shape = written.architecture(args.checkpoint)
        samples = written.samples(encoder.config)
    else:
        shape, samples = {k: v for k, v in MFCC.items() if k != "kind"}, WINDOW
        encoder = Encoder(
            config.build(MFCC, "objectives"),
            {"tokenizer": {}, "encoder": {}},
            dict(objective=MFCC, data=clips(samples)),
        )
    source = _source(args, encoder.rate)
    centroids = fit(
        encoder, source, args.codes, layer=args.layer, vectors=args.vectors, seed=args.seed
    )
    params = {name: encoder.params[name] for name in ("tokenizer", "encoder")}
    quantizer = dict(kind="codebooks:Centroids", codes=args.codes)
    objective = dict(kind="features", **shape, quantizer=quantizer, layer=args.layer)
    options = dict(objective=objective, data=clips(samples))
    exported.write(args.out, params | {"quantizer": {"book": centroids}}, options)
    print(f"{args.out}: {args.codes} codes of {centroids.shape[1]} values")


def _clips(args: argparse.Namespace) -> None:
    """Cluster clips and write a table of them."""
    if args.checkpoint is None:
        parser().error("--clips: name the encoder, with --checkpoint RUN")
    pool, whiten = args.pool or "mean", 128 if args.whiten is None else args.whiten
    if whiten < 1 or (args.codes is not None and args.codes < 1):
        parser().error(f"--codes {args.codes} --whiten {whiten}: wanted at least 1 of each")
    out = pathlib.Path(args.out)
    if out.suffix != ".csv":
        parser().error(f"--out {out}: with --clips wanted a table, FILE.csv")
    from ssl_audio.inference import clip_clusters
    from ssl_audio.inference.load import load
    from ssl_audio.storage import atomic

    atomic.check(out, args.data)
    encoder = load(args.checkpoint, trust=args.trust).encoder
    source = _source(args, encoder.rate)
    codes = args.codes or len(source.info.labels)
    if not codes:
        parser().error("--codes: say how many; this data has no classes")
    how = dict(layer=args.layer, pool=pool, whiten=whiten, seed=args.seed)
    found = clip_clusters.fit(encoder, source, codes, **how)
    atomic.write(out, clip_clusters.table(source, found))
    sizes = np.unique(found.labels, return_counts=True)[1]
    print(
        f"{out}: {len(found.labels)} clips in {len(sizes)} clusters of {sizes.min()} to {sizes.max()}"
    )
    own = [source.meta(int(i)).get("label") for i in found.numbers]
    if own and all(isinstance(label, int) for label in own):
        said = clip_clusters.agreement(found.labels, own).items()
        print("with the classes of the data: " + ", ".join(f"{k} {v:.3f}" for k, v in said))


def _source(args: argparse.Namespace, rate: int) -> Any:
    """Return the clips that the command line names, at a rate.

    Raises:
      ValueError: the config trains on several collections.
    """
    if args.data:
        return _at(places.source(args.data), rate, "--data")
    with slots.trusting(args.trust):
        sources = config_files.load(args.config).data.sources
        if len(sources) != 1:
            raise ValueError(
                f"--config {args.config}: it trains on {', '.join(sources)}; wanted one collection."
            )
        (found,) = config.plain(sources).values()
        return _at(found, rate, "--config: data.sources")


def _at(options: dict[str, Any], rate: int, path: str) -> Any:
    """Return clips at a rate; prepared ones have the one that they were prepared at."""
    if options.get("kind") != "shards":
        return config.build(options | dict(rate=rate), "data", path=path)
    made: Any = config.build(options, "data", path=path)
    if (found := made.meta(0)["rate"]) != rate:
        raise ValueError(
            f"{path}: its clips are at {found} Hz, the features are of {rate} Hz: prepare them so."
        )
    return made
