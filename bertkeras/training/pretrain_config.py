"""All options of a pretraining run, in one flat table: the fields are the TOML keys and the command's options."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from bertkeras.config import POSITIONS, SIZES, BertConfig
from bertkeras.errors import BertKerasError
from bertkeras.pipelines.masking import Masking, default_max_predictions
from bertkeras.pipelines.sentence_pairs import PAIR_KINDS, RowOptions
from bertkeras.text.wordpiece import WordPieceTokenizer
from bertkeras.training.options import Options, option
from bertkeras.training.virtual import check_virtual_devices


@dataclasses.dataclass
class PretrainConfig(Options):
    """Options of `pretrain`. The defaults train a small BERT on the documentation installed on this machine."""

    command: ClassVar[str] = "pretrain"

    corpus: str = option(
        "installed-docs", "a file, a folder, or installed-docs: the docstrings on this machine", "text"
    )
    corpus_format: str = option("auto", "auto, text, jsonl, wikitext, folder or installed-docs", "text")
    field: str = option("text", "the key that holds the text in JSON lines", "text")
    tokenizer: str | None = option(None, "folder of a trained tokenizer; without one, one is trained", "text")
    vocabulary_size: int = option(8000, "word pieces of a tokenizer trained here", "text")
    lowercase: bool = option(True, "lower-case the text and strip its accents", "text")
    prepared: str | None = option(None, "folder made by bertkeras prepare; without one, the corpus is prepared", "text")

    max_sequence_length: int = option(64, "pieces in a row", "rows")
    pairs: str = option("nsp", "nsp, sop, none, or packed: several documents in a row", "rows", PAIR_KINDS)
    short_row_probability: float = option(0.1, "share of pairs cut to a random length", "rows")
    passes: int = option(6, "times the text is cut into rows, each time differently", "rows")
    held_out_share: float = option(0.05, "share of the documents kept for the evaluation", "rows")
    mask_rate: float = option(0.15, "share of the pieces to predict", "rows")
    mask_share: float = option(0.8, "share of these that become [MASK]", "rows")
    random_share: float = option(0.1, "share of these that become another piece; the rest stay", "rows")
    dynamic_masks: bool = option(True, "other masks each time a row is read", "rows")
    whole_words: bool = option(False, "mask all pieces of a word together", "rows")
    max_ngram: int = option(1, "longest run of words masked together", "rows")
    max_predictions: int | None = option(None, "predictions per row; by default mask_rate of a full row", "rows")

    start_from: str | None = option(
        None,
        "a run, a preset or hf://org/name to go on from, with its tokenizer, and its sizes in place of those below",
        "model",
    )
    size: str = option("tiny", "named size of the model", "model", tuple(SIZES))
    num_layers: int | None = option(None, "overrides the size", "model")
    hidden_dim: int | None = option(None, "overrides the size", "model")
    num_heads: int | None = option(None, "overrides the size", "model")
    intermediate_dim: int | None = option(None, "overrides the size", "model")
    dropout: float = option(
        0.0, "dropout, also on the attention; BERT has 0.1, a run of few epochs does without", "model"
    )
    activation: str = option("gelu", "gelu (erf) or gelu_tanh", "model")
    initializer_range: float | None = option(
        None,
        "deviation of the first weights; by default 0.02 * sqrt(768 / hidden_dim), which is BERT's for base",
        "model",
    )
    position_initializer: str = option(
        "sinusoidal",
        "how the learned positions begin: normal, as in BERT, or sinusoidal",
        "model",
        ("normal", "sinusoidal"),
    )
    positions: str = option("learned", "learned, as in BERT, or rotary", "model", POSITIONS)
    gated_feed_forward: bool = option(False, "feed-forward networks with a gate", "model")
    norm_first: bool = option(False, "pre-norm blocks", "model")
    tie_embeddings: bool = option(True, "one table for the pieces that go in and those that come out", "model")

    steps: int = option(6000, "optimizer steps", "training")
    batch_size: int = option(32, "rows per step", "training")
    accumulation: int = option(1, "micro-batches per step, to need less memory", "training")
    virtual_devices: int | None = option(
        None, "parts of a batch, a power of two, added so that all bits are equal on 1, 2, 4, ... devices", "training"
    )
    recompute: bool = option(False, "compute activations twice, to need less memory still", "training")
    head_chunks: int = option(1, "parts in which the masked positions are scored, for a large vocabulary", "training")
    flash_dropout: bool = option(
        False,
        "on an NVIDIA GPU through JAX, attention and its dropout in one kernel, which no resumed run repeats",
        "training",
    )
    learning_rate: float = option(2e-3, "peak, after the warm-up", "training")
    warmup_share: float = option(0.1, "share of the steps over which the learning rate rises", "training")
    weight_decay: float = option(0.01, "decoupled decay of kernels and tables", "training")
    clip_norm: float = option(1.0, "largest norm of the whole gradient", "training")
    ema: float | None = option(None, "momentum of a moving average of the weights, such as 0.999", "training")
    precision: str = option("float32", "float32 or mixed_bfloat16", "training", ("float32", "mixed_bfloat16"))
    jit_compile: bool = option(True, "compile the step with XLA", "training")
    seed: int = option(0, "of every random choice", "training")

    log_steps: int = option(50, "steps between lines of the log", "bookkeeping")
    checkpoint_steps: int = option(500, "steps between checkpoints", "bookkeeping")
    checkpoint_minutes: float = option(10.0, "minutes between checkpoints, whichever comes first", "bookkeeping")
    keep_checkpoints: int = option(2, "checkpoints kept", "bookkeeping")
    sentences: list[str] = option(
        [
            "The function returns a new [MASK] with the same shape as the input.",
            "Raises an error if the [MASK] does not exist.",
            "If True, the [MASK] is returned as a list of strings.",
        ],
        "sentences with [MASK] for the report",
        "bookkeeping",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = ("steps", "batch_size", "accumulation", "head_chunks", "passes", "log_steps", "checkpoint_steps")
        for name in (*at_least_one, "keep_checkpoints", "vocabulary_size"):
            if getattr(self, name) < 1:
                raise BertKerasError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise BertKerasError(f"accumulation={self.accumulation} does not divide batch_size={self.batch_size}")
        if self.virtual_devices is not None:
            check_virtual_devices(self.virtual_devices, self.accumulation, self.flash_dropout)
            if self.batch_size % self.virtual_devices:
                raise BertKerasError(
                    f"virtual_devices={self.virtual_devices} does not divide batch_size={self.batch_size}"
                )
        if not 0 <= self.warmup_share < 1:
            raise BertKerasError(f"warmup_share must be in [0, 1), got {self.warmup_share}")
        if not 0 < self.mask_rate <= 1:
            raise BertKerasError(f"mask_rate must be in (0, 1], got {self.mask_rate}")
        if self.mask_share < 0 or self.random_share < 0 or self.mask_share + self.random_share > 1:
            raise BertKerasError(
                f"mask_share and random_share must be shares of 1, got {self.mask_share} and {self.random_share}"
            )
        if self.learning_rate <= 0 or self.clip_norm <= 0 or self.checkpoint_minutes <= 0:
            raise BertKerasError("learning_rate, clip_norm and checkpoint_minutes must be positive")
        if self.ema is not None and not 0 < self.ema < 1:
            raise BertKerasError(f"ema must be in (0, 1), got {self.ema}")
        for sentence in self.sentences:
            if "[MASK]" not in sentence:
                raise BertKerasError(f"no [MASK] in the sentence {sentence!r}")
        self.bert_config(self.vocabulary_size)
        self.row_options(0, 1, 2)

    def bert_config(self, vocabulary_size: int) -> BertConfig:
        """The architecture that these options ask for."""
        sizes = ("num_layers", "hidden_dim", "num_heads", "intermediate_dim")
        overrides = {name: getattr(self, name) for name in sizes if getattr(self, name) is not None}
        if "hidden_dim" in overrides:
            overrides.setdefault("intermediate_dim", 4 * overrides["hidden_dim"])
        width = overrides.get("hidden_dim") or SIZES[self.size][1]
        # A narrow model needs larger weights for its products to have the variance that 0.02 gives at width 768.
        initializer_range = self.initializer_range or 0.02 * math.sqrt(768 / width)
        return BertConfig.from_size(
            self.size,
            vocabulary_size,
            initializer_range=initializer_range,
            position_initializer=self.position_initializer,
            max_sequence_length=self.max_sequence_length,
            dropout=self.dropout,
            attention_dropout=self.dropout,
            activation=self.activation,
            positions=self.positions,
            gated_feed_forward=self.gated_feed_forward,
            norm_first=self.norm_first,
            tie_embeddings=self.tie_embeddings,
            **overrides,
        )

    def continued(self, config: BertConfig) -> BertConfig:
        """The architecture of the model that a run goes on from, with the dropout of this one.

        Raises:
            BertKerasError: Rows that are longer than that model reads.
        """
        if self.max_sequence_length > config.max_sequence_length:
            raise BertKerasError(
                f"{self.start_from} reads rows of {config.max_sequence_length} pieces at most; "
                f"got max_sequence_length={self.max_sequence_length}"
            )
        return dataclasses.replace(config, dropout=self.dropout, attention_dropout=self.dropout)

    def row_options(self, pad_id: int, cls_id: int, sep_id: int) -> RowOptions:
        """How documents become rows."""
        return RowOptions(
            self.max_sequence_length,
            pairs=self.pairs,
            short_row_probability=self.short_row_probability,
            pad_id=pad_id,
            cls_id=cls_id,
            sep_id=sep_id,
            seed=self.seed,
        )

    def predictions(self, max_sequence_length: int) -> int:
        """Masked positions in a row."""
        return self.max_predictions or default_max_predictions(max_sequence_length, self.mask_rate)

    def masking(self, tokenizer: WordPieceTokenizer, max_sequence_length: int) -> Masking:
        """How rows are masked."""
        return Masking(
            vocabulary_size=tokenizer.vocabulary_size,
            mask_id=tokenizer.mask_id,
            special_ids=tuple(tokenizer.special_ids),
            max_predictions=self.predictions(max_sequence_length),
            continuation=tokenizer.continuation_flags(),
            rate=self.mask_rate,
            mask_share=self.mask_share,
            random_share=self.random_share,
            dynamic=self.dynamic_masks,
            whole_words=self.whole_words,
            max_ngram=self.max_ngram,
            seed=self.seed,
        )
