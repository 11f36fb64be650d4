"""One HTML file about a run, to be opened offline: ssl-audio report W [--set esc10 --root DIR]

W is a workdir of `train` or `folds`. With a labelled set: a map of its embeddings, and what a linear
probe gets wrong there. The errors of a classifier come from the predictions that `folds` wrote.
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import config, slots, startup
from ssl_audio.data.source import Source
from ssl_audio.eval import base, evaluate, folds
from ssl_audio.eval.page import Html, fill, join, table
from ssl_audio.storage import atomic, opened, written
from ssl_audio.train import record, words

if TYPE_CHECKING:
    from ssl_audio.eval.classify import Predictions

log = logging.getLogger("ssl_audio")

ERRORS = 12  # clips to listen to
SECONDS = 10  # of each, at most
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>$title</title>
<style>$style</style>$body</html>
"""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
.wide { overflow-x: auto; max-width: 100% } .facts th { white-space: nowrap; vertical-align: top; padding-left: 0 }
.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere } .facts td:last-child { color: #666 }
.told td:last-child, .told th:last-child { text-align: left } .told td:nth-child(2) { white-space: nowrap } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem } p { max-width: 46rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
p.sub { color: #666; margin-top: .2rem } img, svg { max-width: 100%; height: auto }
table { border-collapse: collapse; margin: .8rem 0 } td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #eee }
td:first-child, th:first-child { text-align: left } thead th { border-bottom: 1px solid #999 }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px } audio { height: 2rem; vertical-align: middle }
@media (max-width: 600px) {
  body { margin: 1rem auto; padding: 0 .7rem } td, th { padding: .15rem .4rem } img { width: 100% !important }
  .facts th, .facts td { display: block; border: 0; padding: 0 } .facts th { padding-top: .5rem; border-bottom: 1px solid #eee }
  .told thead { display: none } .told tr { display: block; padding: .3rem 0; border-bottom: 1px solid #eee }
  .told td { display: inline-block; border: 0; padding: 0 .8rem 0 0 } .told td:last-child { display: block; color: #666 }
  .told td:nth-child(3):not(:last-child)::before { content: "at step " }
}
.legend span { margin-right: 1rem; white-space: nowrap } .dot { display: inline-block; width: .7em; height: .7em; border-radius: 50% }
"""  # noqa: E501


def report(
    workdir: pathlib.Path,
    labelled: Source | None = None,
    protocol: str = "folds",
    pool: str = "mean",
) -> str:
    """Return the page.

    Args:
      workdir: of a run, or of folds.
      labelled: clips to embed, at the encoder's rate; None: no map.
      protocol, pool: see `eval.base.split` and `Encoder.embed`.

    Raises:
      FileNotFoundError: `workdir` is not a workdir.
    """
    from ssl_audio.eval import summary

    runs = [p.parent for p in sorted(workdir.glob("fold*/config.json"), key=_number)] or [workdir]
    if not written.is_run(runs[0]):
        raise FileNotFoundError(f"{workdir}: neither config.json nor fold1/config.json there.")
    options = written.read(runs[0])
    sections = [summary.head(workdir, runs[0], options, len(runs))]
    if (workdir / "folds.json").exists():
        sections.append(_folds(workdir / "folds.json"))
    sections += _probes(workdir)
    sections += _classified(runs, options)
    for run in runs:
        which = f", {run.name}" if len(runs) > 1 else ""
        sections += [*summary.numbers(run, which), *_pictures(run, which)]
    if labelled is not None:
        sections += _labelled(workdir, labelled, protocol, pool)
    return fill(PAGE, title=workdir.name, style=Html(STYLE), body=join(sections, "\n"))


def _classified(runs: Sequence[pathlib.Path], options: Mapping[str, Any]) -> Iterator[Html]:
    """Yield what the classifiers of all runs said of the clips that they were tested on."""
    found = [run / "predictions.npz" for run in runs if (run / "predictions.npz").exists()]
    if found:
        from ssl_audio.eval.classify import Predictions

        predictions = [Predictions.load(path) for path in found]
        yield from _errors(predictions, _tested(runs), "Classifier", written.labels(options))


def _number(path: pathlib.Path) -> int:
    digits = path.parent.name.removeprefix("fold")
    return int(digits) if digits.isdigit() else 0


def _folds(path: pathlib.Path) -> Html:
    wanted = "the scores of folds that `ssl-audio folds` writes"
    results = opened.json_file(path, wanted)
    with opened.reading(path, wanted, StopIteration):
        columns, scores, notes = folds.averaged(results)
    rows = [(label, *values.tolist()) for label, values in scores]
    head = ("fold", *(f"{name}, {which} step" for which, name in columns))
    names = dict.fromkeys(name for _, name in columns)
    meanings = ((name, words.meaning(f"test/{name}")) for name in names)
    said = " ".join([f"{name}: {meaning}." for name, meaning in meanings if meaning] + notes)
    return fill(
        "<h2>Folds</h2><p>Each fold is tested by a model that has not seen it. last: the newest step of its "
        "run; best: the step that validation chose; std: over folds. $words</p>$table",
        words=said,
        table=table(head, rows),
    )


def _probes(workdir: pathlib.Path) -> Iterator[Html]:
    """Yield a table per file of `evaluate`: a row per kind of features, a column per classifier."""
    wanted = "the records that `ssl-audio evaluate` writes"
    for path in sorted((workdir / "evals").glob("*.jsonl")):
        records = opened.json_lines(path, wanted)
        with opened.reading(path, wanted):
            means = [r for r in records if r.get("fold") == "mean"]
            kinds = list(dict.fromkeys(r["features"] for r in means))
            names = list(dict.fromkeys(r["classifier"] for r in means))
            value = {
                (r["features"], r["classifier"]): r.get("accuracy", r.get("mAP")) for r in means
            }
            pools = {str(r["pool"]) for r in records if "pool" in r}
        rows = [(kind, *(value.get((kind, name), "") for name in names)) for kind in kinds]
        about = f"{path.stem}, pooling {', '.join(sorted(pools))}" if pools else path.stem
        yield fill(
            "<h2>Frozen features: $about</h2><p>Share of the clips whose class is right, or mAP: a "
            "classifier (columns) is trained on features (rows) of an encoder that stays as it is. random: "
            "the same encoder untrained; log-mel: statistics of the spectrogram; statistics: bags of its "
            "codes.</p>$table",
            about=about,
            table=table(("features", *names), rows),
        )


def _pictures(run: pathlib.Path, which: str) -> Iterator[Html]:
    from ssl_audio.eval import summary

    metrics = run / "metrics.jsonl"
    figure = record.curves(metrics) if metrics.exists() and metrics.stat().st_size else None
    if figure is not None:
        image = _image(_png(figure), "training curves")
        yield fill("<h2>Training$which</h2>$image", which=which, image=image)
    yield from summary.times(run)
    path = run / "figures" / "reconstructions.png"
    if path.exists():
        image = _image(path.read_bytes(), "reconstructions")
        yield fill(
            "<h2>Reconstructions$which</h2><p>Clips of the last batch, a row each; grey: hidden from the "
            "model.</p>$image",
            which=which,
            image=image,
        )


def _tested(runs: Sequence[pathlib.Path]) -> list[Source]:
    """Return the sources that the runs were tested on, those that are still there."""
    from ssl_audio.train.run import Run

    found = []
    for run in runs:
        options = written.read(run)
        addresses = [text for text in _texts(options.get("evals", {})) if "://" in text]
        if addresses:  # a folder may come from anyone: it makes nobody fetch anything
            log.warning("%s: its test clips are at %s: not fetched, no sound.", run, addresses[0])
            continue
        with opened.naming(run / written.CONFIG):
            evals = config.make(Run, options).evals
        test = evals.get("test", evals.get("validation"))
        try:
            if test is not None and len(test.source):
                found.append(test.source)
        except (ValueError, OSError):
            log.warning("%s: its test clips are gone: no sound.", run)
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in some options."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _texts(entry)
    elif isinstance(value, str):
        yield value


def _errors(
    folds: Sequence[Predictions], sources: Sequence[Source], title: str, names: Sequence[str]
) -> Iterator[Html]:
    """Yield the scores per class, the confusion matrix and the worst errors to listen to."""
    from ssl_audio.eval import classify, metrics

    made = classify.Predictions(
        *(
            np.concatenate([vars(fold)[name] for fold in folds])
            for name in ("ids", "logits", "labels")
        )
    )
    info = sources[0].info if sources else None
    count = made.labels.shape[1]
    if len(names) != count:
        names = info.labels if info and len(info.labels) == count else tuple(map(str, range(count)))
    several = bool((made.labels.sum(axis=1) != 1).any()) or bool(info and info.multilabel)
    scores = classify.scores(made.logits, made.labels, multilabel=several)
    yield fill(
        "<h2>$title on held-out clips</h2><p>$count clips.</p>$table",
        title=title,
        count=len(made.ids),
        table=table(
            ("score", "value", "meaning"),
            [
                (n, int(v) if n in metrics.COUNTS else v, words.meaning(f"test/{n}"))
                for n, v in scores.items()
            ],
            "told",
        ),
    )
    head, rows = classify.per_class(made, names, multilabel=several)
    there = [f"{n}: {words.COLUMNS[n]}." for n in head[1:]]
    if missing := classify.absent(names, made.labels):
        there.append(f"No clip is of {', '.join(missing)}: in no mean over classes.")
    shown = [(n, int(c), *("–" if v is None else float(v) for v in vs)) for n, c, *vs in rows]
    made_table = table(head, shown)
    yield fill("<h3>Classes</h3><p>$words</p>$table", words=" ".join(there), table=made_table)
    if several:
        return
    truth, said = made.labels.argmax(axis=1), made.logits.argmax(axis=1)
    yield fill(
        "<h3>Confusion</h3><p>Rows: what clips are; columns: what they were taken for; numbers of "
        "clips.</p>$image",
        image=_image(
            _png(classify.confusion(truth, said, names)), "confusion matrix", 34 + len(names)
        ),
    )
    logits = made.logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = share[np.arange(len(truth)), truth]
    worst = [i for i in np.argsort(right, kind="stable") if truth[i] != said[i]][:ERRORS]
    where = {source.meta(k)["id"]: (source, k) for source in sources for k in range(len(source))}
    rows = [
        (
            made.ids[i],
            names[truth[i]],
            names[said[i]],
            f"{share[i, said[i]]:.2f}",
            _audio(*where[made.ids[i]]) if made.ids[i] in where else "",
        )
        for i in worst
    ]
    if rows:
        made_table = table(("clip", "is", "taken for", "with", "listen"), rows, "told")
        yield fill(
            "<h3>Worst errors</h3><p>A clip, what it is, what it was taken for, and the probability that "
            "the model gave to that.</p>$table",
            table=made_table,
        )


def _labelled(workdir: pathlib.Path, source: Source, protocol: str, pool: str) -> Iterator[Html]:
    """Yield a map of the embeddings, and what a linear probe says of each clip, folds held out."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.manifold import TSNE

    from ssl_audio.eval import features
    from ssl_audio.eval.classify import Predictions
    from ssl_audio.inference.load import load

    encoder = load(workdir).encoder
    numbers, x = features.matrix(source, features.encoded(encoder, [-1], pool), desc="embed")
    metas = [source.meta(int(i)) for i in numbers]
    split = base.split(metas, protocol)
    labels = np.array([m["label"] for m in metas])
    ids = np.array([m["id"] for m in metas])
    everything = np.ones(len(ids), bool)
    z = base.standardise(x[:, 0], everything)
    dims = min(50, *z.shape)
    flat = PCA(dims, random_state=0).fit_transform(z)
    perplexity = min(30.0, (len(z) - 1) / 3)
    places = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(flat)
    names = source.info.labels or tuple(map(str, range(labels.max() + 1)))
    yield fill(
        "<h2>Map of the embeddings</h2>"
        "<p>t-SNE of the final layer: a dot for each clip, near to those that it resembles; the axes have no "
        "unit. Point at a dot for its clip.</p>"
    )
    yield _scatter(places, labels, ids, names)
    logits = np.full((len(ids), len(names)), -1e9)
    for test in split.tests.values():
        z = base.standardise(x[:, 0], ~test)
        model = LogisticRegression(C=10 / z.shape[1], max_iter=1000).fit(z[~test], labels[~test])
        logits[np.ix_(test, model.classes_)] = model.predict_log_proba(z[test])
    tested = np.any(list(split.tests.values()), axis=0)
    onehot = np.eye(len(names), dtype=np.float32)[labels]
    made = Predictions(ids[tested], logits[tested], onehot[tested])
    yield from _errors([made], [source], "Linear probe", names)


def _scatter(places: np.ndarray, labels: np.ndarray, ids: np.ndarray, names: Sequence[str]) -> Html:
    low, high = places.min(axis=0), places.max(axis=0)
    at = 15 + (places - low) / np.maximum(high - low, 1e-9) * [770, 470]
    dot = '<circle cx="$x" cy="$y" r="4" fill="$colour" fill-opacity=".8"><title>$name</title></circle>'
    dots = (
        fill(
            dot, x=f"{x:.1f}", y=f"{y:.1f}", colour=_colour(k, len(names)), name=f"{i}: {names[k]}"
        )
        for (x, y), k, i in zip(at, labels, ids, strict=True)
    )
    one = '<span><i class="dot" style="background:$colour"></i> $name</span>'
    legend = (fill(one, colour=_colour(k, len(names)), name=n) for k, n in enumerate(names))
    return fill(
        '<svg viewBox="0 0 800 500" role="img" aria-label="map of the embeddings">$dots</svg>'
        '<p class="legend">$legend</p>',
        dots=join(dots),
        legend=join(legend, " "),
    )


def _colour(k: int, count: int) -> str:
    return f"hsl({360 * k // count} 70% {45 if k % 2 else 58}%)"


def _image(png: bytes, name: str, width: int = 100) -> Html:
    data = base64.b64encode(png).decode()
    one = '<img alt="$name" style="width:$width%" src="data:image/png;base64,$data">'
    return fill(one, name=name, width=width, data=data)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _audio(source: Source, k: int) -> Html:
    import soundfile

    example = source[k]
    buffer = io.BytesIO()
    sound = example["audio"][: SECONDS * example["rate"]]
    soundfile.write(buffer, sound, example["rate"], format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode()
    one = '<audio controls preload="none" src="data:audio/flac;base64,$data"></audio>'
    return fill(one, data=data)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio report`."""
    made = startup.parser("report", __doc__)
    made.add_argument("workdir", help="of train or folds")
    made.add_argument("--set", choices=evaluate.SETS, dest="data", help="labelled clips to embed")
    made.add_argument("--root", help="where they are (synthetic: nowhere)")
    made.add_argument("--pool", default="mean", help="see evaluate")
    made.add_argument("--output", help="default: report.html in the workdir")
    startup.add_trust(made)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the page."""
    args = parser().parse_args(argv)
    workdir = pathlib.Path(args.workdir).expanduser().resolve()
    if not workdir.is_dir():
        raise ValueError(f"{workdir}: no such folder; wanted the workdir of train or folds.")
    path = pathlib.Path(args.output).expanduser() if args.output else workdir / "report.html"
    atomic.check(path)
    with slots.trusting(args.trust):
        _write(args, workdir, path)


def _write(args: argparse.Namespace, workdir: pathlib.Path, path: pathlib.Path) -> None:
    source, protocol = None, "folds"
    if args.data:
        options, protocol = evaluate.SETS[args.data]
        root = {"root": args.root} if args.root else {}
        from ssl_audio.inference.load import load

        rate = load(workdir).rate
        source = config.build({**options, **root, "rate": rate}, "data", path="--set")
    page = report(workdir, source, protocol, args.pool)
    atomic.write(path, page)
    print(f"{path}: {len(page) / 2**20:.1f} MiB")
