"""What can be said of clusters before anything is trained on them."""

from wscl_embed.diagnostics.agreement import Agreement, agreement
from wscl_embed.diagnostics.diagnosis import Diagnostics, diagnose
from wscl_embed.diagnostics.information import InformationPlane, Interval, blocks, information_plane
from wscl_embed.diagnostics.plot import plot_information_plane
from wscl_embed.diagnostics.stability import Spread, Stability, measure_stability

__all__ = [
    "Agreement",
    "Diagnostics",
    "InformationPlane",
    "Interval",
    "Spread",
    "Stability",
    "agreement",
    "blocks",
    "diagnose",
    "information_plane",
    "measure_stability",
    "plot_information_plane",
]
