"""The map: two coordinates and a cluster for each vector, computed once and kept beside the index.

PCA to 50 numbers, then t-SNE (scikit-learn) of at most 3,000 landmarks, about which the other rows are
placed; or UMAP (extra `umap`). While that runs, the page shows the first two principal components.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import pathlib
import threading
import time
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from ssl_audio.storage import atomic

KINDS = ("tsne", "umap", "pca")
LANDMARKS = 3000  # for t-SNE, whose time grows faster than they do: 25 s on one core
COMPONENTS = 50
NEAR = 8  # landmarks that place a row
CLUSTERS = 12  # most
BLOCK = 8192  # rows worked on together
VERSION = 1  # of what is kept

log = logging.getLogger("ssl_audio")

Say = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """Where each row lies, [N, 2] in -1 … 1, and its cluster [N]."""

    points: np.ndarray
    clusters: np.ndarray


class Projection:
    """A map in the making: `start` computes in a thread, `state` says how far it is.

    Args:
      vectors: [N, D].
      path: where it is kept.
      kind: one of `KINDS`.
    """

    def __init__(self, vectors: np.ndarray, path: pathlib.Path, kind: str = "tsne"):
        self._vectors, self._path, self._kind = vectors, path, kind
        self._began = time.monotonic()
        self._stopped = False
        self.map: Map | None = None
        self.state: dict[str, Any] = {"stage": "waiting", "share": 0.0, "done": False, "version": 0}
        if kind == "umap":
            _umap()

    def start(self, between: Callable[[], None] = lambda: None) -> threading.Thread:
        """Do `run` in a thread."""
        thread = threading.Thread(target=self.run, args=(between,), name="map", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Say that nobody waits for the map any more: what fails from now on is not told."""
        self._stopped = True

    def run(self, between: Callable[[], None] = lambda: None) -> None:
        """Read what was kept, or compute and keep it; `between` is called after reading."""
        try:
            digest = _digest(self._vectors, self._kind)
            kept = _kept(self._path, digest, len(self._vectors))
            if kept is not None:
                self._done(kept)
            between()
            if kept is None:
                with _one_core():
                    made = compute(self._vectors, self._kind, self._say, self._show)
                self._keep(made, digest)
                self._done(made)
        except Exception as error:  # the page works without a map
            if self._stopped:  # its work's files may be gone
                return
            log.warning("no map: %s: %s", type(error).__name__, error)
            self.state = {**self.state, "stage": f"failed: {error}", "done": True}

    def _done(self, found: Map) -> None:
        self._show(found)
        self.state = {**self.state, "stage": "done", "share": 1.0, "done": True}

    def _say(self, stage: str, share: float) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        self.state = {**self.state, "stage": stage, "share": round(share, 3), "seconds": seconds}

    def _show(self, found: Map) -> None:
        self.map = found
        self.state = {**self.state, "version": self.state["version"] + 1}

    def _keep(self, made: Map, digest: str) -> None:
        try:
            with atomic.path(self._path) as partial, partial.open("w+b") as file:
                np.savez(file, points=made.points, clusters=made.clusters, digest=np.array(digest))
        except OSError as error:
            log.warning("%s: the map is not kept: %s", self._path, error.strerror)


def compute(
    vectors: np.ndarray,
    kind: str = "tsne",
    say: Say = lambda stage, share: None,
    show: Callable[[Map], None] = lambda found: None,
) -> Map:
    """Return the map of vectors [N, D].

    Args:
      vectors: unit vectors.
      kind: "tsne" (van der Maaten and Hinton 2008), "umap" (McInnes et al. 2018) or "pca".
      say: is told stage and share of the work.
      show: is given the principal components before the rest is done.
    """
    say("principal components", 0.02)
    reduced = _components(vectors)
    say("clusters", 0.1)
    clusters = _clusters(reduced)
    first = Map(_scaled(reduced[:, :2]), clusters)
    if kind == "pca" or len(vectors) < 8:
        return first
    show(first)
    points = _by_umap(reduced, say) if kind == "umap" else _by_tsne(reduced, say)
    return Map(_scaled(points), clusters)


def _components(vectors: np.ndarray) -> np.ndarray:
    """Return [N, at most 50], of the axes of largest variance of up to 20,000 rows; at least two columns."""
    rng = np.random.default_rng(0)
    few = vectors
    if len(vectors) > 20_000:
        few = vectors[rng.choice(len(vectors), 20_000, replace=False)]
    mean = few.mean(axis=0)
    centred = few - mean
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, np.argsort(-values)[:COMPONENTS]]
    found = (vectors @ axes) - mean @ axes
    return np.pad(found, ((0, 0), (0, max(0, 2 - found.shape[1]))))


def _clusters(reduced: np.ndarray) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    count = int(min(CLUSTERS, max(1, np.sqrt(len(reduced) / 2))))
    how: Any = {"n_init": 3, "batch_size": 2048, "max_iter": 20}
    made = MiniBatchKMeans(count, random_state=0, **how)
    few = reduced[np.random.default_rng(0).permutation(len(reduced))[:20_000]]
    found = made.fit(few).predict(reduced)
    order = np.argsort(-np.bincount(found, minlength=count))  # number 0 is the largest
    return np.argsort(order)[found].astype(np.int16)


def _by_tsne(reduced: np.ndarray, say: Say) -> np.ndarray:
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(0)
    landmarks = np.sort(rng.permutation(len(reduced))[:LANDMARKS])
    some = reduced[landmarks]
    say(f"t-SNE of {len(some):,} rows", 0.15)
    how = dict(perplexity=min(30.0, (len(some) - 1) / 3), random_state=0, max_iter=500)
    found = TSNE(2, init="pca", **how).fit_transform(some)  # type: ignore[arg-type]
    if len(some) == len(reduced):
        return found
    placed = np.empty((len(reduced), 2), np.float32)
    squares = (some**2).sum(axis=1)
    spread = found.std() * 0.01
    for at in range(0, len(reduced), BLOCK):
        say(f"placing {len(reduced):,} rows", 0.75 + 0.25 * at / len(reduced))
        block = reduced[at : at + BLOCK]
        distances = squares - 2 * block @ some.T  # less the block's own squares
        near = np.argpartition(distances, NEAR, axis=1)[:, :NEAR]
        few = np.take_along_axis(distances, near, axis=1) + (block**2).sum(axis=1, keepdims=True)
        few = np.maximum(few, 1e-12)
        # The nearest counts most: a mean of equal weights would draw rows between the islands.
        weights = (few.min(axis=1, keepdims=True) / few) ** 4
        weights /= weights.sum(axis=1, keepdims=True)
        placed[at : at + BLOCK] = np.einsum("nk,nkc->nc", weights, found[near])
    placed += rng.normal(0, spread, placed.shape).astype(np.float32)
    placed[landmarks] = found
    return placed


def _by_umap(reduced: np.ndarray, say: Say) -> np.ndarray:
    say(f"UMAP of {len(reduced):,} rows", 0.15)
    return _umap()(n_components=2, random_state=0).fit_transform(reduced)


def _one_core() -> Any:
    """Leave other cores to searches and pictures; on a busy machine threads of t-SNE wait for each other."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


def _umap() -> Any:
    try:
        from umap import UMAP
    except ImportError:
        raise RuntimeError("--map umap needs umap-learn: pip install 'ssl_audio[umap]'.") from None
    return UMAP


def _scaled(points: np.ndarray) -> np.ndarray:
    """Return points in -1 … 1, in the middle; a few far ones may lie outside."""
    low, high = np.percentile(points, [0.2, 99.8], axis=0)
    half = max(float((high - low).max()) / 2, 1e-9) * 1.05
    return ((points - (low + high) / 2) / half).clip(-1.5, 1.5).astype(np.float32)


def _digest(vectors: np.ndarray, kind: str) -> str:
    found = hashlib.blake2b(f"{VERSION} {kind} {vectors.shape}".encode(), digest_size=16)
    found.update(vectors.data)
    return found.hexdigest()


def _kept(path: pathlib.Path, digest: str, rows: int) -> Map | None:
    """Return the map in a file, if it is of these vectors; one that is damaged is made again."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            if str(found["digest"]) != digest:
                return None
            points, clusters = found["points"], found["clusters"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    good = points.shape == (rows, 2) and clusters.shape == (rows,) and np.isfinite(points).all()
    return Map(points.astype(np.float32), clusters.astype(np.int16)) if good else None
