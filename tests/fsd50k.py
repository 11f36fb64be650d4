"""A tiny tree with the folders, headers, names and identifiers of FSD50K."""

import json

import numpy as np
import soundfile

# A part of the vocabulary, with its names and identifiers.
VOCABULARY = {
    "Animal": "/m/0jbk", "Bark": "/m/05tny_", "Bell": "/m/0395lw", "Dog": "/m/0bt9lr",
    "Domestic_animals_and_pets": "/m/068hy", "Door": "/m/02dgv", "Doorbell": "/m/03wwcy",
    "Electric_guitar": "/m/02sgy", "Growling": "/m/0ghcn6", "Music": "/m/04rlf",
    "Musical_instrument": "/m/04szw", "Tap": "/m/07qcpgn",
}  # fmt: skip
# With the parents that AudioSet's ontology gives them; some have several, and some no class.
CHILDREN = {
    "Animal": ["Domestic_animals_and_pets", "/m/01280g"],
    "Domestic_animals_and_pets": ["Dog", "/m/01yrx"],
    "Dog": ["Bark", "Growling"],
    "/m/01yrx": ["Growling"],  # cat, no class here
    "/m/01280g": ["/m/0cdnk"],  # wild animals
    "/m/0cdnk": ["Growling"],  # roaring cats
    "Music": ["Musical_instrument"],
    "Musical_instrument": ["Bell", "/m/0342h"],
    "/m/0342h": ["Electric_guitar"],  # guitar: a class of the real one that is none here
    "/t/dd00077": ["Bell", "Door"],  # sounds of things
    "Door": ["Doorbell", "Tap"],
    "/m/07pp_mv": ["Doorbell"],  # alarm
    "/m/06_y0by": ["Tap"],  # generic impact sounds
}
CLIPS = {  # part → name: seconds, labels, split
    "dev": {
        "64760": (0.3, "Electric_guitar,Musical_instrument,Music", "train"),
        "16399": (2.3, "Bark,Dog,Domestic_animals_and_pets,Animal", "train"),
        "345111": (1.0, "Doorbell,Door", "val"),
    },
    "eval": {"37199": (30.0, "Bell", ""), "175151": (0.5, "Tap,Growling,Animal", "")},
}


def mid(name: str) -> str:
    return VOCABULARY.get(name, name)


def ontology(path, children):
    names = {*children, *(child for some in children.values() for child in some)}
    rows = [
        {
            "id": mid(name), "name": name, "description": "", "citation_uri": "", "positive_examples": [],
            "child_ids": [mid(child) for child in children.get(name, ())], "restrictions": [],
        }
        for name in sorted(names)
    ]  # fmt: skip
    path.write_text(json.dumps(rows))


def row(labels):
    mids = ",".join(mid(name) for name in labels.split(",")) if labels else ""
    return f'"{labels}","{mids}"' if "," in labels else f"{labels},{mids}"


def tables(root, clips=CLIPS, ground="FSD50K.ground_truth"):
    truth = root / ground
    truth.mkdir(parents=True, exist_ok=True)
    lines = [f"{i},{name},{VOCABULARY[name]}" for i, name in enumerate(VOCABULARY)]
    (truth / "vocabulary.csv").write_text("\n".join(lines) + "\n")
    dev = [f"{name},{row(labels)},{split}" for name, (_, labels, split) in clips["dev"].items()]
    held = [f"{name},{row(labels)}" for name, (_, labels, _) in clips["eval"].items()]
    (truth / "dev.csv").write_text("\n".join(["fname,labels,mids,split", *dev]) + "\n")
    (truth / "eval.csv").write_text("\n".join(["fname,labels,mids", *held]) + "\n")


def tree(root, ground="FSD50K.ground_truth", sound="FSD50K.{}_audio"):
    tables(root, ground=ground)
    rng = np.random.default_rng(0)
    for part, clips in CLIPS.items():
        place = root / sound.format(part)
        place.mkdir(parents=True)
        for name, (seconds, *_) in clips.items():
            samples = rng.normal(0, 0.1, round(seconds * 44_100))
            soundfile.write(place / f"{name}.wav", samples, 44_100, subtype="PCM_16")
    return str(root)
