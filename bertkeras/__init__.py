"""Train your own BERT with Keras 3, from raw text to a model you ship."""

from typing import TYPE_CHECKING

from bertkeras.lazy import lazy_names

if TYPE_CHECKING:
    from bertkeras.config import BertConfig
    from bertkeras.datasets.knowledge import Knowledge
    from bertkeras.errors import BertKerasError
    from bertkeras.layers import (
        CRF,
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
        BertReplacedTokenDetector,
        BertSeq2Seq,
        BertTextClassifier,
        BertTextEmbedder,
        BertTokenClassifier,
        find_entities,
        gibbs_sample,
        mask_predict,
        seq2seq_rows,
        zero_shot,
    )
    from bertkeras.text.wordpiece import WordPieceTokenizer

__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BertConfig": "config",
        "BertKerasError": "errors",
        "Knowledge": "datasets.knowledge",
        "CRF": "layers",
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
        "BertReplacedTokenDetector": "models",
        "BertSeq2Seq": "models",
        "BertTextClassifier": "models",
        "BertTextEmbedder": "models",
        "BertTokenClassifier": "models",
        "find_entities": "models",
        "gibbs_sample": "models",
        "mask_predict": "models",
        "seq2seq_rows": "models",
        "zero_shot": "models",
        "WordPieceTokenizer": "text.wordpiece",
    },
)

__all__ = [
    "CRF",
    "BertBackbone",
    "BertConfig",
    "BertEmbeddings",
    "BertKerasError",
    "BertMaskedLM",
    "BertPretrainer",
    "BertQuestionAnswerer",
    "BertReplacedTokenDetector",
    "BertSeq2Seq",
    "BertTextClassifier",
    "BertTextEmbedder",
    "BertTokenClassifier",
    "Knowledge",
    "MaskedLMHead",
    "MultiHeadSelfAttention",
    "NextSentenceHead",
    "PositionwiseFeedForward",
    "TransformerEncoderBlock",
    "WordPieceTokenizer",
    "__version__",
    "find_entities",
    "gibbs_sample",
    "mask_predict",
    "seq2seq_rows",
    "zero_shot",
]
