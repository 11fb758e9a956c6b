"""A variant handed on: its folder or GGUF file, its model card, and the upload to the Hub."""
