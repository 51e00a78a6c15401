"""Named arrays in files; knows no model."""
