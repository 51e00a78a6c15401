"""Named arrays in files; knows no model."""

FORMATS = ("bertkeras", "hugging_face", "keras_hub", "tensorflow1")
