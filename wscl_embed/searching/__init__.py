"""Searching an embedding file: by image, text or id, among the images that meet a condition, exactly or by an index."""

from wscl_embed.searching.searcher import Hit, Searcher

__all__ = ["Hit", "Searcher"]
