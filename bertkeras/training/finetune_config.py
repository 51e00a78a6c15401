"""All options of a fine-tuning run."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from bertkeras.config import DECODERS, OBJECTIVES, POOLINGS
from bertkeras.datasets.readers import TASKS
from bertkeras.errors import BertKerasError
from bertkeras.text.tags import SCHEMES
from bertkeras.training.options import Options, option

FILE_FORMATS = ("auto", "csv", "tsv", "jsonl", "conll", "squad")


@dataclasses.dataclass
class FinetuneConfig(Options):
    """Options of `finetune`: data, model, how it is fitted to the task, training."""

    command: ClassVar[str] = "finetune"

    task: str = option("classification", "what the labels are", "data", TASKS)
    train: str | None = option(None, "file to learn from: .csv, .tsv, .jsonl, .conll or SQuAD's .json", "data")
    dev: str | None = option(None, "file to choose by; without one, a share of --train is set aside", "data")
    test: str | None = option(None, "file to report on, read by nothing else", "data")
    dataset: str | None = option(None, "a named data set in place of files", "data")
    train_split: str = option("train", "the part of --dataset to learn from", "data")
    dev_split: str | None = option(
        None, "the part to choose by; by default dev, or a share of the training part", "data"
    )
    test_split: str = option("test", "the part to report on", "data")
    format: str = option("auto", "of the files; auto goes by their names", "data", FILE_FORMATS)
    text_column: str = option("text", "the column or key that holds the text", "data")
    pair_column: str | None = option(None, "the one that holds the second text; by default pair, if there", "data")
    label_column: str = option("label", "the one that holds the label", "data")
    dev_share: float = option(0.1, "share of --train that is set aside where there is no --dev", "data")
    max_train: int | None = option(None, "learn from at most so many examples, drawn by the seed", "data")
    max_length: int | None = option(None, "pieces in a row; by default 128, and 384 for question-answering", "data")
    overlap: int = option(128, "pieces that neighbouring rows of a long context share", "data")

    model: str = option("all-MiniLM-L6-v2", "a run, a preset folder, hf://org/name or the name of a model", "model")
    head_dropout: float | None = option(None, "dropout before the head; by default that of the model", "model")
    decoder: str = option("crf", "of entities", "model", DECODERS)
    scheme: str = option("bio", "how entities are written as tags", "model", SCHEMES)
    pooling: str | None = option(None, "of sentence vectors; by default as the model says", "model", POOLINGS)
    objective: str = option("cosine", "of sentence vectors", "model", OBJECTIVES)

    freeze_layers: int = option(0, "encoder blocks, from the bottom, that stay as they are", "fitting")
    freeze_embeddings: bool = option(False, "leave the embeddings as they are", "fitting")
    lora_rank: int | None = option(None, "train low-rank additions to the kernels instead of the kernels", "fitting")
    layer_decay: float = option(1.0, "each layer learns by this factor slower than the one above it", "fitting")
    head_factor: float | None = option(
        None,
        "the head learns by this factor faster than the top layer; by default 10 for entities and multi-label, else 1",
        "fitting",
    )
    crf_factor: float = option(100.0, "the transitions of a CRF learn by this factor faster", "fitting")
    adversarial: float = option(0.0, "length of the step against the embeddings (FGM), such as 1.0", "fitting")
    class_weights: str = option("none", "balanced: seldom classes weigh more", "fitting", ("none", "balanced"))
    calibrate: bool = option(True, "fit temperature and thresholds on the development data", "fitting")

    epochs: int = option(3, "times through the training data", "training")
    batch_size: int = option(16, "rows per step", "training")
    learning_rate: float | None = option(
        None,
        "peak, after the warm-up; by default 5e-5 for a width of 768, 2e-4 for half of it, at most 5e-4",
        "training",
    )
    warmup_share: float = option(0.1, "share of the steps over which the learning rate rises", "training")
    weight_decay: float = option(0.01, "decoupled decay of kernels and tables", "training")
    clip_norm: float = option(1.0, "largest norm of the whole gradient", "training")
    patience: int | None = option(None, "stop after so many epochs without a better development figure", "training")
    precision: str = option("float32", "float32 or mixed_bfloat16", "training", ("float32", "mixed_bfloat16"))
    jit_compile: bool = option(False, "compile the step with XLA, anew for every length of rows", "training")
    seed: int = option(0, "of every random choice", "training")
    seeds: int = option(1, "runs with this and the following seeds, summed up with mean and spread", "training")
    folds: int = option(0, "cross-validation: so many parts of the training data, each tested once", "training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.train is None) == (self.dataset is None):
            raise BertKerasError("give --train FILE or --dataset NAME, one of the two")
        if self.dataset is not None and (self.dev or self.test):
            raise BertKerasError("--dataset brings its own development and test data; leave out --dev and --test")
        for name in ("epochs", "batch_size", "seeds"):
            if getattr(self, name) < 1:
                raise BertKerasError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_train", "lora_rank", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise BertKerasError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.folds == 1 or self.folds < 0:
            raise BertKerasError(f"folds must be 0 or at least 2, got {self.folds}")
        if self.folds and self.seeds > 1:
            raise BertKerasError("give --folds or --seeds, not both")
        if self.folds and self.test:
            raise BertKerasError("--folds tests on parts of the training data; leave out --test")
        if not 0 < self.dev_share < 1 or not 0 <= self.warmup_share < 1:
            raise BertKerasError("dev_share must be in (0, 1) and warmup_share in [0, 1)")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise BertKerasError(f"learning_rate must be positive, got {self.learning_rate}")
        for name in ("clip_norm", "layer_decay", "head_factor", "crf_factor"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise BertKerasError(f"{name} must be positive, got {value}")
        if self.adversarial < 0 or self.freeze_layers < 0 or self.weight_decay < 0 or self.overlap < 0:
            raise BertKerasError("adversarial, freeze_layers, weight_decay and overlap must not be negative")
        if self.max_length is not None and self.max_length < 8:
            raise BertKerasError(f"max_length must be at least 8, got {self.max_length}")
        if self.class_weights == "balanced" and self.task not in ("classification", "multi-label"):
            raise BertKerasError(f"class_weights are for classification and multi-label, not for {self.task}")
        if self.task == "similarity" and self.batch_size % 2:
            raise BertKerasError("batch_size must be even for similarity: a batch holds pairs of texts")

    def columns(self) -> dict[str, str]:
        """Names of the columns by their roles."""
        pair = {} if self.pair_column is None else {"pair": self.pair_column}
        return {"text": self.text_column, "label": self.label_column, **pair}

    def peak(self, width: int) -> float:
        """The highest learning rate for a model of that width."""
        return self.learning_rate or min(5e-5 * (768 / width) ** 2, 5e-4)

    def head_rate(self) -> float:
        """How much faster than the top layer the head learns: where most labels say no, a head begins slowly."""
        return self.head_factor or (10.0 if self.task in ("entities", "multi-label") else 1.0)

    def row_length(self, model_limit: int) -> int:
        """Pieces in a row, no more than the model can read."""
        length = self.max_length or (384 if self.task == "question-answering" else 128)
        return min(length, model_limit)
