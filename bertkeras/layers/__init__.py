"""The arithmetic of a BERT: each layer reads like the formula it implements."""

from bertkeras.layers.attention import MultiHeadSelfAttention
from bertkeras.layers.crf import CRF
from bertkeras.layers.embeddings import BertEmbeddings
from bertkeras.layers.encoder_block import TransformerEncoderBlock
from bertkeras.layers.feed_forward import PositionwiseFeedForward
from bertkeras.layers.heads import MaskedLMHead, NextSentenceHead

__all__ = [
    "CRF",
    "BertEmbeddings",
    "MaskedLMHead",
    "MultiHeadSelfAttention",
    "NextSentenceHead",
    "PositionwiseFeedForward",
    "TransformerEncoderBlock",
]
