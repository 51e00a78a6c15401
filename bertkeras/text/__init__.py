"""From raw text to word pieces."""

from bertkeras.text.wordpiece import Encoding, WordPieceTokenizer

__all__ = ["Encoding", "WordPieceTokenizer"]
