"""Train your own BERT with Keras 3."""
