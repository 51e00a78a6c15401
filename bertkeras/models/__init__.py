"""Layers assembled into models."""

from bertkeras.models.backbone import BertBackbone
from bertkeras.models.masked_lm import BertMaskedLM, Filling
from bertkeras.models.pretrainer import BertPretrainer
from bertkeras.models.question_answerer import BertQuestionAnswerer
from bertkeras.models.text_classifier import BertTextClassifier
from bertkeras.models.text_embedder import BertTextEmbedder
from bertkeras.models.token_classifier import BertTokenClassifier

__all__ = [
    "BertBackbone",
    "BertMaskedLM",
    "BertPretrainer",
    "BertQuestionAnswerer",
    "BertTextClassifier",
    "BertTextEmbedder",
    "BertTokenClassifier",
    "Filling",
]
