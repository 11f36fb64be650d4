"""What the numbers of a run mean, for `report` and the curves; a test holds docs/metrics.md to it."""

import re

WORDS = {
    "step": "updates made so far",
    "loss": "what the optimizer descends: the weighted sum of the method's parts",
    "gradient_norm": "Euclidean norm of the gradients of all that learns, before clipping",
    "lr": "learning rate of the update",
    "skipped": "different clips that could not be read so far; each is named once in the log. Of several "
    "processes it counts those of the first; the others name theirs in the log too",
    "clips_per_second": "over all devices; the first step compiles and is not counted",
    "input_wait": "share of the time in which the devices waited for clips; above 0.1, more threads, "
    "workers or prepared shards help",
    "flops_utilisation": "share of the devices' peak arithmetic; only where the peak is known",
    "elapsed": "seconds that the run has taken so far, over all its starts",
    "goodput/step": "training steps: the goodput",
    "goodput/input": "waiting for clips (`input_wait` is the same since the last record, without the first "
    "step)",
    "goodput/compile": "compiling the step, or loading what was compiled before",
    "goodput/save": "what the loop waits for when it saves; most of a save is written beside the next steps",
    "goodput/evaluation": "evaluators and pictures",
    "goodput/start": "everything else before the first step: opening the data, the first state",
    "goodput/restart": "the same at later starts, with restoring the checkpoint; and the work between the "
    "newest checkpoint and the last record before a kill, which is made again",
    "nce": "cross-entropy of telling the true patch (or latent) from the other masked ones, nats; chance is "
    "the logarithm of their number",
    "accuracy": "share of correct choices: masked patches told from others, codes guessed, classes, a clip's "
    "other view found among all",
    "mse": "mean squared error of reconstructed patches, in units of the normalised spectrogram",
    "patch": "the loss of patches",
    "clip": "the loss of whole clips",
    "frame": "the loss of time columns",
    "retention": "the loss of what a mixture should retain of its two clips",
    "context": "share of the tokens that the student hears",
    "restore": "mean absolute error of the restored part of the spectrogram",
    "patch_entropy": "entropy of the teacher's mean output, nats; 0: always the same",
    "clip_entropy": "entropy of the teacher's mean output, nats; 0: always the same",
    "error": "mean squared distance from the teacher's latents",
    "target_deviation": "standard deviation of the teacher's latents over a batch; near 0 is a collapse",
    "predicted_deviation": "standard deviation of the predicted latents over a batch; near 0 is a collapse",
    "target_deviation_in_clip": "the same within each clip",
    "entropy": "cross-entropy of the codes of masked frames, or of those to come, nats",
    "majority": "share of the most frequent code: what always guessing it would get right; compare with "
    "`accuracy`",
    "codes_in_use": "perplexity of the codes of a batch: how many are in use, as if equally often",
    "cosine": "similarity to the teacher",
    "distance": "mean absolute difference from the teacher's features",
    "commitment": "distance from the nearest codes",
    "codebook": "squared distance of codebooks' entries from what they stand for",
    "told_apart": "share of the choices between one that belongs and one that does not that are right; "
    "chance is a half",
    "triplet": "by how much the distance of the clip that belongs is not smaller than that of others by the "
    "margin",
    "labelled_pixels": "share of the pixels that have a label",
    "wave": "mean absolute error of the samples",
    "mel": "mean absolute difference of magnitudes, and squared one of their logarithms, over log-mels; DAC: "
    "absolute one of the logarithms",
    "adversarial": "minus the discriminator's mean score of decoded sound; DAC: squared distance of its "
    "scores from 1",
    "matching": "mean absolute difference of the discriminator's inner layers",
    "real": "by how much the discriminator's scores of recorded sound fall short of 1; DAC: squared distance "
    "from 1",
    "fake": "by how much its scores of decoded sound exceed -1; DAC: squared distance from 0",
    "divergence": "how far the latent vectors are from a standard normal, nats",
    "velocity": "mean squared error of the velocity of noised latents",
    "preferred": "share of the pairs whose winner the model prefers more than the frozen one does",
    "gain": "by how much the signal-to-distortion ratio exceeds that of the mixture, dB",
    "SDRi": "the same over test mixtures of two classes, either asked for: mean over the classes",
    "SDRi_median": "its median over the mixtures",
    "SDRi_wrong": "the same where the other sound is asked for: below 0 if the query decides",
    "SDRi_half": "the same of half the mixture, which knows nothing: 3 for sounds unlike each other",
    "audio_to_text": "share of a batch's clips whose own caption is the most similar; chance is 1 / batch "
    "size",
    "text_to_audio": "share of a batch's captions whose own clip is the most similar; chance is 1 / batch "
    "size",
    "audio_to_image": "share of a batch's clips whose own picture is the most similar",
    "image_to_audio": "share of a batch's pictures whose own clip is the most similar",
    "image_to_text": "share of a batch's pictures whose own caption is the most similar",
    "text_to_image": "share of a batch's captions whose own picture is the most similar",
    "query_to_audio": "share of a batch's queries whose own clip is the most similar",
    "audio_to_query": "share of a batch's clips whose own query is the most similar",
    "audio_to_audio_positive": "share of a batch's clips whose liked clip is nearer than all others and "
    "those that were rejected",
    "audio_positive_to_audio": "share of a batch's liked clips whose own clip is the most similar",
    "audio_to_before": "share of a batch's clips whose vector is near that of the stage before: a "
    "cosine above 0.9",
    "before_to_audio": "the same as audio_to_before",
    "audio_pair_to_video_pair": "share of a batch's clips whose own video is the most similar",
    "video_pair_to_audio_pair": "share of a batch's videos whose own clip is the most similar",
    "audio_class_to_video_class": "share of a batch's clips to which one of their class is the most similar",
    "video_class_to_audio_class": "share of a batch's videos to which one of their class is the most similar",
    "R@1": "share of queries whose own clip is the first",
    "R@5": "share of queries whose own clip is among the first 5",
    "R@10": "share of queries whose own clip is among the first 10",
    "median_rank": "median over queries of the place of their own clip, from 1",
    "precision@10": "share of the first 10 that fit the query",
    "hit@10": "share of queries with one that fits among the first 10",
    "NDCG@10": "those that fit among the first 10, weighed by their places; 1: all come first",
    "scale": "factor of the similarities (inverse temperature), learned",
    "labelled": "cross-entropy of the clips with labels, nats",
    "unlabelled": "cross-entropy of the clips without labels against their guessed labels, nats",
    "confident": "share of the clips without labels whose guess is sure enough to count",
    "strong": "cross-entropy of the first strong view, not mixed, against the guess, nats",
    "flips": "cross-entropy of telling how a view was flipped, nats; chance is log 4",
    "weight": "factor of the term of clips without labels, which rises",
    "disagreement": "mean squared distance between the probabilities of student and teacher",
    "agree": "Jensen-Shannon divergence between both models, nats",
    "differ": "cross-entropy of each model on what was made to deceive the other, nats",
    "agree_weight": "factor of `agree`, which rises",
    "known": "share of a batch's clips that have a cluster; 0 in the first epoch",
    "clusters": "perplexity of the clusters: how many are in use, as if equally often",
    "deviation": "standard deviation over a batch of the vectors' values, at length 1",
    "own": "cross-entropy of the layers' classifiers, nats",
    "follow": "divergence of the layers' classifiers from the last one, nats",
    "align": "2 - 2 cos between the layers' classifiers and the last one",
    "agreement": "mean correlation of the same value in both views: 1 is the goal",
    "redundancy": "root mean square of the correlations of different values: 0 is the goal",
    "contrast": "cross-entropy of telling a clip's other view from those in the queue, nats",
    "cluster_contrast": "cross-entropy of telling a cluster in the other view from other clusters, nats",
    "spread": "deviation of the vectors: 1 for directions drawn at random; below 0.1 is an alarm",
    "mAP": "mean over classes of the average precision (clips with several labels)",
    "micro_mAP": "average precision of all pairs of a clip and a class in one list",
    "AUC": "mean over classes of the area under the ROC curve",
    "d_prime": "the area under the ROC curve as a distance of two normal distributions",
    "lwlrap": "label-weighted label-ranking average precision",
    "f1_micro": "F1 of events whose class, onset and offset are right, over all events",
    "f1_macro": "the same as mean of classes",
    "f1_segment_micro": "F1 of seconds in which a class is active, over all classes",
    "f1_segment_macro": "the same as mean of classes",
    "psds1": "area under found events against false alarms per hour, over all thresholds: quick reaction",
    "psds2": "the same: telling classes apart",
    "balanced_accuracy": "mean over classes of the share of their clips that are right",
    "classes": "classes that have a clip, of which means over classes are taken",
    "AUC_classes": "classes that have clips with and without them, of which AUC and d' are means",
    "text_to_audio_mAP": "mean over labels of the average precision of all clips",
    "centroid_distance": "how far the means of audio and text lie apart",
    "separability": "how well audio and text can be told apart; 0.5 is no gap",
}
OF_EVALUATIONS = {"accuracy": "share of clips whose class is right"}
UNITS = {
    "nce": "nats", "entropy": "nats", "patch_entropy": "nats", "clip_entropy": "nats",
    "accuracy": "share", "majority": "share", "codes_in_use": "codes", "skipped": "clips",
    "gradient_norm": "norm", "lr": "rate", "mAP": "share", "AUC": "share", "lwlrap": "share",
    "micro_mAP": "share", "balanced_accuracy": "share", "audio_to_text": "share", "text_to_audio": "share",
    "audio_to_image": "share", "image_to_audio": "share", "image_to_text": "share", "text_to_image": "share",
}  # fmt: skip
COLUMNS = {
    "clips": "clips of the class that were tested",
    "precision": "share of right ones among those taken for the class",
    "recall": "share of the class's clips that were recognised",
    "F1": "harmonic mean of precision and recall",
    "average precision": "mean precision over the ranks of the class's clips",
}


def meaning(name: str) -> str:
    """Return what a number of metrics.jsonl means; "": nobody has said."""
    part, _, last = name.rpartition("/")
    if name in WORDS:
        return WORDS[name].replace("`", "")
    if match := re.fullmatch(r"(text_to_audio|audio_to_text)_R@(\d+)", last):
        what = "captions whose clip is" if match[1] == "text_to_audio" else "clips whose caption is"
        return f"share of {what} among the first {match[2]}"
    said = OF_EVALUATIONS.get(last, WORDS.get(last, "")) if part else WORDS.get(last, "")
    return said.replace("`", "")


def unit(name: str) -> str:
    """Return the unit of a number, for the axis of a curve; "": none."""
    return UNITS.get(name.rpartition("/")[2], "")
