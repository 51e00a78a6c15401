"""Train your own BERT with Keras 3, from raw text to a model you ship."""

from typing import TYPE_CHECKING

from bertkeras.lazy import lazy_names

if TYPE_CHECKING:
    from bertkeras.config import BertConfig
    from bertkeras.errors import BertKerasError
    from bertkeras.layers import (
        BertEmbeddings,
        MaskedLMHead,
        MultiHeadSelfAttention,
        NextSentenceHead,
        PositionwiseFeedForward,
        TransformerEncoderBlock,
    )
    from bertkeras.models import (
        BertBackbone,
        BertMaskedLM,
        BertPretrainer,
        BertQuestionAnswerer,
        BertTextClassifier,
        BertTextEmbedder,
        BertTokenClassifier,
    )
    from bertkeras.text.wordpiece import WordPieceTokenizer

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BertConfig": "config",
        "BertKerasError": "errors",
        "BertEmbeddings": "layers",
        "MaskedLMHead": "layers",
        "MultiHeadSelfAttention": "layers",
        "NextSentenceHead": "layers",
        "PositionwiseFeedForward": "layers",
        "TransformerEncoderBlock": "layers",
        "BertBackbone": "models",
        "BertMaskedLM": "models",
        "BertPretrainer": "models",
        "BertQuestionAnswerer": "models",
        "BertTextClassifier": "models",
        "BertTextEmbedder": "models",
        "BertTokenClassifier": "models",
        "WordPieceTokenizer": "text.wordpiece",
    },
)

__all__ = [
    "BertBackbone",
    "BertConfig",
    "BertEmbeddings",
    "BertKerasError",
    "BertMaskedLM",
    "BertPretrainer",
    "BertQuestionAnswerer",
    "BertTextClassifier",
    "BertTextEmbedder",
    "BertTokenClassifier",
    "MaskedLMHead",
    "MultiHeadSelfAttention",
    "NextSentenceHead",
    "PositionwiseFeedForward",
    "TransformerEncoderBlock",
    "WordPieceTokenizer",
    "__version__",
]
