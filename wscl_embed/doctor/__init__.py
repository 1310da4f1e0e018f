"""`examine`: whether this machine and installation can do a run, each part looked at by itself.

Nothing here may need what it examines: a torch that cannot be imported is a finding.
"""

from wscl_embed.doctor.examination import examine
from wscl_embed.doctor.finding import Finding

__all__ = ["Finding", "examine"]
