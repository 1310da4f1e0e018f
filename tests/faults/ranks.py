"""Run by test_ranks.py under ``torchrun``: ``wscl-embed`` in processes of which one gets a signal in training.

torchrun ... -m tests.faults.ranks RANK SIGNAL ARGUMENT...
"""

from __future__ import annotations

import os
import sys

from wscl_embed.cli import main
from wscl_embed.train.saving import Saving

if __name__ == "__main__":
    rank, signum = int(sys.argv[1]), int(sys.argv[2])
    step = Saving.after_step

    def after_step(self: Saving) -> None:
        """In the third step of the second epoch."""
        if (self.progress.epoch, self.progress.step) == (1, 3) and int(os.environ.get("RANK", "0")) == rank:
            os.kill(os.getpid(), signum)
        step(self)

    Saving.after_step = after_step  # type: ignore[method-assign]
    sys.argv = ["wscl-embed", *sys.argv[3:]]
    main()
