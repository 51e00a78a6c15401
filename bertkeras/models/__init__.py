"""Layers assembled into models."""

from bertkeras.models.backbone import BertBackbone
from bertkeras.models.masked_lm import BertMaskedLM, Filling
from bertkeras.models.pretrainer import BertPretrainer
from bertkeras.models.question_answerer import BertQuestionAnswerer
from bertkeras.models.replaced_token_detector import BertReplacedTokenDetector
from bertkeras.models.sampling import gibbs_sample, mask_predict
from bertkeras.models.search import Decoding
from bertkeras.models.seq2seq import BertSeq2Seq, Generation, Seq2SeqRows, seq2seq_rows
from bertkeras.models.text_classifier import BertTextClassifier
from bertkeras.models.text_embedder import BertTextEmbedder
from bertkeras.models.token_classifier import BertTokenClassifier
from bertkeras.models.zero_shot import find_entities, zero_shot

__all__ = [
    "BertBackbone",
    "BertMaskedLM",
    "BertPretrainer",
    "BertQuestionAnswerer",
    "BertReplacedTokenDetector",
    "BertSeq2Seq",
    "BertTextClassifier",
    "BertTextEmbedder",
    "BertTokenClassifier",
    "Decoding",
    "Filling",
    "Generation",
    "Seq2SeqRows",
    "find_entities",
    "gibbs_sample",
    "mask_predict",
    "seq2seq_rows",
    "zero_shot",
]
