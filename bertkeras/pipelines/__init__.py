"""Tokens to batches, in `tf.data`: pairs, packed rows, records on disk, masks.

TensorFlow is imported when a pipeline is built, not when this package is imported.
"""

from bertkeras.pipelines.masking import Masking
from bertkeras.pipelines.pretraining import pretraining_dataset
from bertkeras.pipelines.records import Records
from bertkeras.pipelines.sentence_pairs import RowOptions

__all__ = ["Masking", "Records", "RowOptions", "pretraining_dataset"]
