"""compresslab: does compressing a language model raise its capability density, or only shrink it?"""

__version__ = "0.1.0"
