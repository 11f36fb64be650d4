"""How well a convolutional tagger's maps tell ESC-10's classes: python experiments/convert/maps.py RUN DIR

RUN: a converted VGG. The means of each of its maps, over the first and the last window of a clip, in
logistic regression, five folds.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ssl_audio
from ssl_audio.data.sets.esc import Esc
from ssl_audio.storage import written


def main(run: str, root: str) -> None:
    """Print the accuracy of each fold, and their mean."""
    model = ssl_audio.load(run)
    source, size = Esc(root, "esc10", rate=model.rate), written.samples(model.config)

    @jax.jit
    def means(audio):
        batch = {"audio": audio, "length": jnp.full(len(audio), size)}
        layers = model.objective.encode(model.params, {}, batch).layers
        return jnp.concatenate([jnp.mean(x, (1, 2)) for x in layers], -1).mean(0)

    vectors = []
    for i in range(len(source)):
        audio = source[i]["audio"]
        audio = np.pad(audio, (0, max(0, size - len(audio))))
        vectors.append(means(np.stack([audio[:size], audio[-size:]])))
    labels, folds = ([getattr(clip, name) for clip in source.clips] for name in ("label", "fold"))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    found = cross_val_score(probe, np.stack(vectors), labels, cv=PredefinedSplit(folds))
    print(*(f"{value:.3f}" for value in [*found, found.mean()]))


if __name__ == "__main__":
    main(*sys.argv[1:])
