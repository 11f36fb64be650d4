"""The configs that transformers wants beside weights: config.json and preprocessor_config.json, from ours.

Each refuses what transformers would compute otherwise. Called by the families' `reference_config` and
`extractor_config`.
"""

from collections.abc import Mapping
from typing import Any

from ssl_audio import config as configs
from ssl_audio.frontend.fbank import Fbank
from ssl_audio.storage import written

EXTRACTOR = dict(padding_value=0.0, padding_side="right", return_attention_mask=False)


def names(config: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """Return the names of a classifier's classes and what kind of labels it has."""
    known = written.labels(config) or tuple(f"LABEL_{i}" for i in range(classes))
    if len(known) != classes:
        raise ValueError(
            f"config.data.entries.label.names: got {len(known)} names, wanted one for each of the "
            f"{classes} classes of the head."
        )
    single = config["objective"].get("criterion", "softmax") == "softmax"
    return dict(
        id2label={str(i): name for i, name in enumerate(known)},
        label2id={name: i for i, name in enumerate(known)},
        problem_type="single_label_classification" if single else "multi_label_classification",
    )


def ast_extractor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ASTFeatureExtractor.

    Raises:
      ValueError: the front end is of another kind.
    """
    frontend = configs.build(config["objective"]["frontend"], "frontend")
    fixed = ("hop", "window", "low", "high", "preemphasis", "taper", "scale", "padding")
    _same(frontend, Fbank(), fixed, "ASTFeatureExtractor")
    return dict(
        EXTRACTOR,
        feature_extractor_type="ASTFeatureExtractor",
        feature_size=1,
        sampling_rate=frontend.rate,
        num_mel_bins=frontend.bins,
        max_length=frontend.frames,
        do_normalize=True,
        mean=float(frontend.mean),
        std=float(frontend.std),
    )


def _same(found: Any, wanted: Any, fields: tuple[str, ...], theirs: str) -> None:
    """Raise ValueError naming the fields in which a front end is not as transformers has it."""
    if type(found) is not type(wanted):
        differ = [f"it is a {type(found).__name__}, wanted a {type(wanted).__name__}"]
    else:
        pairs = [(n, getattr(found, n), getattr(wanted, n)) for n in fields]
        differ = [f"{n} is {got!r}, wanted {w!r}" for n, got, w in pairs if got != w]
    if differ:
        raise ValueError(f"objective.frontend: {theirs} hears otherwise: {'; '.join(differ)}.")


def speech(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of Wav2Vec2Model, HubertModel, WavLMModel or Data2VecAudioModel."""
    built = configs.build(config["objective"], "objectives")
    encoder, tokenizer = built.encoder, built.tokenizer
    layers, positions, block = tokenizer.tokenizer, encoder.positions, encoder.block
    bias = encoder.pair_bias
    found: dict[str, Any] = dict(
        model_type=_speech_type(config, built),
        hidden_size=encoder.width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=block.mixer.heads,
        intermediate_size=round(block.mlp * encoder.width),
        hidden_act="gelu",
        feat_extract_activation="gelu",
        feat_extract_norm=layers.norm,
        conv_dim=list(layers.widths),
        conv_kernel=list(layers.kernels),
        conv_stride=list(layers.strides),
        conv_bias=layers.bias,
        num_feat_extract_layers=len(layers.widths),
        num_conv_pos_embedding_groups=positions.groups,
        do_stable_layer_norm=encoder.first_norm is None,
        layer_norm_eps=block.norm.eps,
    )
    if hasattr(positions, "depth"):
        found |= dict(num_conv_pos_embeddings=positions.depth, conv_pos_kernel_size=positions.size)
    else:
        found["num_conv_pos_embeddings"] = positions.size
    if bias is not None:
        found |= dict(num_buckets=bias.buckets, max_bucket_distance=bias.distance)
    quantizer = getattr(built, "quantizer", None)
    if quantizer is not None:
        found |= dict(
            architectures=["Wav2Vec2ForPreTraining"],
            num_codevector_groups=quantizer.groups,
            num_codevectors_per_group=quantizer.codes,
            codevector_dim=quantizer.width,
            proj_codevector_dim=built.width,
            contrastive_logits_temperature=built.temperature,
            num_negatives=built.negatives,
            diversity_loss_weight=built.diversity,
        )
    return found


def _speech_type(config: Mapping[str, Any], built: Any) -> str:
    if known := config.get("reference", {}).get("model_type"):
        return known
    if built.encoder.pair_bias is not None:
        return "wavlm"
    # HuBERT's architecture is that of wav2vec 2.0.
    return "data2vec-audio" if hasattr(built.encoder.positions, "depth") else "wav2vec2"


def speech_extractor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of Wav2Vec2FeatureExtractor.

    Raises:
      ValueError: the model hears no waveform, or a part of it only.
    """
    frontend = configs.build(config["objective"]["frontend"], "frontend")
    if frontend.bins != 1 or frontend.frames is not None:
        raise ValueError(
            "objective.frontend: Wav2Vec2FeatureExtractor hears otherwise: wanted whole waveforms, "
            "kind 'raw' without frames."
        )
    # As published: models with group norms were trained without a mask.
    group = config["objective"]["tokenizer"]["tokenizer"].get("norm") == "group"
    return EXTRACTOR | dict(
        feature_extractor_type="Wav2Vec2FeatureExtractor",
        feature_size=1,
        sampling_rate=frontend.rate,
        do_normalize=frontend.standardise,
        return_attention_mask=not group,
    )


def clap(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of ClapModel.

    Raises:
      ValueError: a tower is missing.
    """
    towers = configs.build(config["objective"], "objectives").towers
    if missing := {"audio", "text"} - towers.keys():
        raise ValueError(
            f"ClapModel has two towers; this model lacks {', '.join(sorted(missing))}."
        )
    audio, text = towers["audio"], towers["text"]
    tokenizer, encoder, words = audio.tokenizer, audio.encoder, text.tokenizer
    fusion, stages = tokenizer.fusion, len(encoder.depths)
    shared = dict(projection_dim=audio.projector.out, projection_hidden_act="relu")
    heard = dict(
        shared,
        model_type="clap_audio_model",
        num_mel_bins=audio.frontend.bins,
        spec_size=tokenizer.size,
        patch_size=tokenizer.patch,
        patch_stride=[tokenizer.stride] * 2,
        patch_embeds_hidden_size=tokenizer.width,
        hidden_size=tokenizer.width * 2 ** (stages - 1),
        num_hidden_layers=stages,
        depths=list(encoder.depths),
        num_attention_heads=list(encoder.heads),
        window_size=encoder.window,
        mlp_ratio=encoder.mlp,
        qkv_bias=encoder.bias,
        layer_norm_eps=encoder.eps,
        hidden_act="gelu",
        enable_fusion=fusion is not None,
        fusion_type=None if fusion is None else "aff_2d",
        aff_block_r=4 if fusion is None else fusion.reduction,
    )
    block = text.encoder.block
    read = dict(
        shared,
        model_type="clap_text_model",
        vocab_size=words.vocab,
        hidden_size=words.width,
        num_hidden_layers=text.encoder.depth,
        num_attention_heads=block.mixer.heads,
        intermediate_size=round(block.mlp * words.width),
        hidden_act="gelu",
        max_position_embeddings=words.length,
        type_vocab_size=words.types,
        layer_norm_eps=words.eps,
        pad_token_id=words.first - 1,
    )
    return dict(shared, model_type="clap", audio_config=heard, text_config=read)


def clap_extractor(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ClapFeatureExtractor.

    Raises:
      ValueError: the front end is of another kind.
    """
    frontend = configs.build(config["objective"]["towers"]["audio"]["frontend"], "frontend")
    samples, rate = written.samples(config), frontend.rate
    fused = frontend.scale == "htk"
    wanted = type(frontend)(area=not fused)
    _same(frontend, wanted, ("area", "floor", "mean", "std", "bank_rate"), "ClapFeatureExtractor")
    if samples % rate:
        raise ValueError(
            f"data.entries.audio.samples: ClapFeatureExtractor takes whole seconds; got {samples} samples "
            f"at {rate} Hz."
        )
    fills = {"repeatpad": "repeatpad", "repeat": "repeat", "zeros": "pad"}
    fill = written.entry(config, "audio").get("fill", "repeatpad")
    if fill not in fills:
        raise ValueError(f"data.entries.audio.fill: ClapFeatureExtractor has no {fill!r}.")
    return EXTRACTOR | dict(
        feature_extractor_type="ClapFeatureExtractor",
        feature_size=frontend.bins,
        sampling_rate=rate,
        hop_length=frontend.hop,
        fft_window_size=frontend.window,
        max_length_s=samples // rate,
        frequency_min=round(frontend.low),
        frequency_max=round(frontend.high),
        truncation="fusion" if fused else "rand_trunc",
        padding=fills[fill],
        top_db=None,
    )
