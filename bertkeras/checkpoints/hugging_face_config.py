"""The `config.json` of Hugging Face `transformers`, as a `BertConfig` and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bertkeras.checkpoints.presets import Preset
from bertkeras.config import BertConfig
from bertkeras.errors import BertKerasError

CONFIG_FILE = "config.json"
# Their architecture, and the class here that it is.
MODELS = {
    "BertModel": "BertBackbone",
    "BertForPreTraining": "BertPretrainer",
    "BertForMaskedLM": "BertMaskedLM",
    "BertForSequenceClassification": "BertTextClassifier",
    "BertForTokenClassification": "BertTokenClassifier",
    "BertForQuestionAnswering": "BertQuestionAnswerer",
}
ARCHITECTURES = {ours: theirs for theirs, ours in MODELS.items()} | {"BertTextEmbedder": "BertModel"}
TASKS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}

SIZES = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_dim",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_dim",
}
OPTIONS = {
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_segments",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "layer_norm_epsilon",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_embeddings",
}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
# What must stand as it does here, or not at all, because the numbers depend on it.
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "cross_attention_hidden_size": (None,),
    "quantization_config": (None,),
    "auto_map": (None,),
    "pooler_type": ("first_token_transform",),
}
# What has no part in the numbers.
HARMLESS = {
    "architectures", "attn_implementation", "_attn_implementation_autoset", "attn_implementation_internal",
    "_attn_implementation", "_name_or_path", "author", "bos_token_id", "chunk_size_feed_forward",
    "classifier_dropout", "directionality", "dtype", "embedding_size", "eos_token_id", "finetuning_task",
    "gradient_checkpointing", "id2label", "label2id", "language", "model_max_length", "name", "num_labels",
    "output_attentions", "output_hidden_states", "output_past", "pad_token_id", "pooler_fc_size",
    "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "prefix", "problem_type",
    "return_dict", "sep_token_id", "task_specific_params", "tokenizer_class", "torch_dtype", "torchscript",
    "transformers_version", "use_bfloat16", "use_cache",
    # of generation, and of losses: older releases wrote them for every model
    "_num_labels", "bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty",
    "do_sample", "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_ids", "exponential_decay_length_penalty",
    "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores",
    "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature",
    "tf_legacy_loss", "tie_encoder_decoder", "top_k", "top_p", "typical_p",
}  # fmt: skip


def to_bert_config(said: dict[str, Any], path: Path) -> BertConfig:
    """Their configuration as ours; what cannot be honoured is an error."""
    for name, allowed in FIXED.items():
        if name in said and said[name] not in allowed:
            raise BertKerasError(f"{path}: {name} is {said[name]!r}, and only {allowed[0]!r} is supported")
    known = {*FIXED, *HARMLESS, *SIZES, *OPTIONS, "hidden_act"}
    if unknown := sorted(set(said) - known):
        raise BertKerasError(
            f"{path}: unknown option {', '.join(unknown)}; if the numbers do not depend on it, remove it from the file"
        )
    if missing := sorted(set(SIZES) - set(said)):
        raise BertKerasError(f"{path} does not say {', '.join(missing)}; it is no configuration of a BERT")
    activation = said.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise BertKerasError(
            f"{path}: unknown activation hidden_act={activation!r}; known are {', '.join(ACTIVATIONS)}"
        )
    values = {ours: said[theirs] for theirs, ours in {**SIZES, **OPTIONS}.items() if theirs in said}
    try:
        return BertConfig(**values, activation=ACTIVATIONS[activation])
    except BertKerasError as error:
        raise BertKerasError(f"{path}: {error}") from error


def to_hugging_face_config(preset: Preset, pad_token_id: int) -> dict[str, Any]:
    """The `config.json` of a model of ours."""
    config, options = preset.config, preset.options
    model = preset.model
    if model == "BertPretrainer" and not options.get("next_sentence", True):
        model = "BertMaskedLM"
    if model is None:
        raise BertKerasError("nothing says whether this classifies texts or pieces; load it as a model and save that")
    if model not in ARCHITECTURES:
        raise BertKerasError(f"transformers has no model for a {preset.model}")
    for name, theirs in (("norm_first", False), ("positions", "learned"), ("gated_feed_forward", False)):
        if getattr(config, name) != theirs:
            raise BertKerasError(
                f"BERT in transformers has {name} {theirs!r}; a model with {getattr(config, name)!r} stays here"
            )
    if options.get("task") == "single_label" and options["num_classes"] == 1:
        raise BertKerasError("transformers knows no choice among one class; make it task='regression' or 'multi_label'")
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    if config.activation not in activations:
        raise BertKerasError(f"transformers has no activation {config.activation!r}")
    described = {
        "architectures": [ARCHITECTURES[model]],
        "model_type": "bert",
        **{theirs: getattr(config, ours) for theirs, ours in {**SIZES, **OPTIONS}.items()},
        "hidden_act": activations[config.activation],
        "pad_token_id": pad_token_id,
        "position_embedding_type": "absolute",
    }
    if "num_classes" in options:
        labels = options.get("labels") or [f"LABEL_{index}" for index in range(options["num_classes"])]
        described["id2label"] = {str(index): label for index, label in enumerate(labels)}
        described["label2id"] = {label: index for index, label in enumerate(labels)}
    if "task" in options:
        described["problem_type"] = {ours: theirs for theirs, ours in TASKS.items()}[options["task"]]
    if options.get("head_dropout") is not None:
        described["classifier_dropout"] = options["head_dropout"]
    return described


def read_model_name(said: dict[str, Any], path: Path) -> str | None:
    """The class here; `None` where the configuration does not say, their name where there is no counterpart."""
    architectures = said.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise BertKerasError(f"{path}: architectures must be a list of names, got {architectures!r}")
    for name in architectures:
        if name in MODELS:
            return MODELS[name]
    return architectures[0] if architectures else None


def read_options(said: dict[str, Any], model: str | None, arrays: dict[str, np.ndarray], path: Path) -> dict[str, Any]:
    """The further arguments of the class."""
    if model == "BertBackbone":
        return {"with_pooler": "backbone/pooler/kernel" in arrays}
    if "classifier/kernel" not in arrays:
        return {"next_sentence": "nsp_head/scores/kernel" in arrays} if model == "BertPretrainer" else {}
    num_classes = arrays["classifier/kernel"].shape[-1]
    options = {"num_classes": num_classes, "labels": _labels(said, num_classes, path)}
    options["head_dropout"] = rate = said.get("classifier_dropout")
    if rate is not None and (not isinstance(rate, int | float) or not 0 <= rate < 1):
        raise BertKerasError(f"{path}: classifier_dropout must be a number in [0, 1), got {rate!r}")
    if model != "BertTokenClassifier":
        problem = said.get("problem_type") or ("regression" if num_classes == 1 else "single_label_classification")
        if not isinstance(problem, str) or problem not in TASKS:
            raise BertKerasError(f"{path}: unknown problem_type {problem!r}; known: {', '.join(TASKS)}")
        options["task"] = TASKS[problem]
    return options


def _labels(said: dict[str, Any], num_classes: int, path: Path) -> list[str] | None:
    named = said.get("id2label") or {}
    count = len(named) if named else said.get("num_labels", said.get("_num_labels", num_classes))
    if not isinstance(named, dict) or count != num_classes:
        raise BertKerasError(
            f"{path}: the classifier has {num_classes} outputs, but {'id2label' if named else 'num_labels'} tells of"
            f" {count}; mend it"
        )
    if not named:
        return None
    labels: list[Any] = [named.get(str(index)) for index in range(num_classes)]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) != num_classes:
        raise BertKerasError(
            f"{path}: id2label must give the numbers 0 to {num_classes - 1} different names, got {named!r}"
        )
    return None if labels == [f"LABEL_{index}" for index in range(num_classes)] else labels
