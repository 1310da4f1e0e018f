"""Embedding files and models in the layouts other tools read: one file a layout, found through `LAYOUTS`."""

from wscl_embed.export.layouts import LAYOUTS, export

__all__ = ["LAYOUTS", "export"]
