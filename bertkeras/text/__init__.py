"""From raw text to word pieces."""

from bertkeras.text.corpus import Corpus
from bertkeras.text.in_graph import InGraphTokenizer
from bertkeras.text.installed_docs import iter_installed_docs
from bertkeras.text.sentences import split_sentences
from bertkeras.text.wordpiece import Encoding, WordPieceTokenizer

__all__ = ["Corpus", "Encoding", "InGraphTokenizer", "WordPieceTokenizer", "iter_installed_docs", "split_sentences"]
