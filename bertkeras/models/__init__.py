"""Layers assembled into models."""

from bertkeras.models.backbone import BertBackbone
from bertkeras.models.masked_lm import BertMaskedLM, Filling
from bertkeras.models.pretrainer import BertPretrainer

__all__ = ["BertBackbone", "BertMaskedLM", "BertPretrainer", "Filling"]
