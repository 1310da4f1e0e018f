"""The embedding file: one HDF5 file that any HDF5 reader opens (``docs/hdf5.md`` has its schema)."""

from wscl_embed.store.container import FORMAT, FORMAT_VERSION
from wscl_embed.store.reader import EmbeddingStore
from wscl_embed.store.rows import TextRows

__all__ = ["FORMAT", "FORMAT_VERSION", "EmbeddingStore", "TextRows"]
