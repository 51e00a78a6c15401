"""The sizes and hyper-parameters of a BERT."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from bertkeras.errors import BertKerasError


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Architecture of a BERT encoder (Devlin et al. 2019, section 3).

    Args:
        vocabulary_size: Number of word pieces.
        num_layers: Number of encoder blocks (`L` in the paper).
        hidden_dim: Width of the residual stream (`H`).
        num_heads: Attention heads (`A`); divides `hidden_dim`.
        intermediate_dim: Width inside the feed-forward network, `4 * hidden_dim` in the paper.
        max_sequence_length: Rows in the position table.
        num_segments: Rows in the segment table.
        dropout: Dropout after embeddings, attention output and feed-forward output.
        attention_dropout: Dropout on the attention probabilities.
        activation: `"gelu"` (erf form), `"gelu_tanh"` (approximation) or another Keras activation name.
        layer_norm_epsilon: Added to the variance in every layer norm.
        initializer_range: Standard deviation of the truncated normal that draws the kernels.
        position_initializer: How the learned position table begins: `"normal"` as the other tables, as in BERT, or
            `"sinusoidal"`, so that relative places can be read from it at once; a small BERT then
            learns sooner which neighbours matter.
        positions: `"learned"`, a table of vectors that are added to the embeddings, as in BERT, or `"rotary"`: no
            table, and queries and keys turned by their positions (Su et al. 2021).
        gated_feed_forward: Feed-forward networks with a gate, `(activation(x U) * (x V)) W` (Shazeer 2020), instead of
            BERT's `activation(x U) W`; half as many weights more at the same `intermediate_dim`.
        norm_first: Pre-norm blocks and a final layer norm, instead of BERT's post-norm.
        tie_embeddings: Whether the token table is the output matrix of the masked LM too, as in BERT.

    Example:

    >>> from bertkeras import BertConfig
    >>> BertConfig.from_size("tiny", vocabulary_size=8000).hidden_dim
    128
    """

    vocabulary_size: int
    num_layers: int
    hidden_dim: int
    num_heads: int
    intermediate_dim: int
    max_sequence_length: int = 512
    num_segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-12
    initializer_range: float = 0.02
    position_initializer: str = "normal"
    positions: str = "learned"
    gated_feed_forward: bool = False
    norm_first: bool = False
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in (
            "vocabulary_size",
            "num_layers",
            "hidden_dim",
            "num_heads",
            "intermediate_dim",
            "max_sequence_length",
            "num_segments",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BertKerasError(f"{name} must be a positive integer, got {value!r}")
        if self.hidden_dim % self.num_heads:
            raise BertKerasError(
                f"num_heads must divide hidden_dim, got num_heads={self.num_heads} and hidden_dim={self.hidden_dim}"
            )
        if self.positions not in POSITIONS:
            raise BertKerasError(f"positions must be one of {', '.join(POSITIONS)}, got {self.positions!r}")
        for name in ("dropout", "attention_dropout"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise BertKerasError(f"{name} must be a number in [0, 1), got {value!r}")
        for name in ("norm_first", "tie_embeddings", "gated_feed_forward"):
            if not isinstance(getattr(self, name), bool):
                raise BertKerasError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("layer_norm_epsilon", "initializer_range"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise BertKerasError(f"{name} must be a positive number, got {value!r}")

    @classmethod
    def from_size(cls, size: str, vocabulary_size: int, **overrides: Any) -> BertConfig:
        """A named size: the miniatures of Turc et al. 2019, and base and large of the BERT paper."""
        if size not in SIZES:
            raise BertKerasError(f"unknown size {size!r}; choose one of {', '.join(SIZES)}")
        num_layers, hidden_dim, num_heads = SIZES[size]
        sizes = {
            "num_layers": num_layers,
            "hidden_dim": hidden_dim,
            "num_heads": num_heads,
            "intermediate_dim": 4 * hidden_dim,
        }
        return cls.from_dict({"vocabulary_size": vocabulary_size, **sizes, **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BertConfig:
        """Build from plain values; a name that is not a field, or one that lacks, is an error, never passed over."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise BertKerasError(f"unknown BertConfig option {', '.join(unknown)}")
        missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
        if missing:
            raise BertKerasError(f"missing BertConfig option {', '.join(missing)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"


# Choices of the task models, here so that the command line can name them before Keras is imported
POSITIONS = ("learned", "rotary")
TEXT_TASKS = ("single_label", "multi_label", "regression")
DECODERS = ("softmax", "crf")
POOLINGS = ("cls", "mean", "max")
OBJECTIVES = ("contrastive", "cosine")

# (num_layers, hidden_dim, num_heads)
SIZES = {
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
