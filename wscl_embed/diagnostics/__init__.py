"""What can be said of clusters before anything is trained on them."""

from wscl_embed.diagnostics.information import InformationPlane, Interval, blocks, information_plane

__all__ = ["InformationPlane", "Interval", "blocks", "information_plane"]
