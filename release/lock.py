"""Write a lock with hashes from pip's report on standard input (``make lock``).

pip install --dry-run --ignore-installed --report - ... | python -m release.lock > release/NAME.txt
"""

from __future__ import annotations

import json
import sys
from typing import Any


def locked(report: dict[str, Any]) -> str:
    """The requirements of ``pip install --require-hashes``, one a package, in alphabetical order.

    >>> archive = {"archive_info": {"hashes": {"sha256": "ab"}}}
    >>> item = {"metadata": {"name": "Toy", "version": "1.0"}, "download_info": archive}
    >>> print(locked({"install": [item]}), end="")
    toy==1.0 --hash=sha256:ab
    """
    lines = []
    for item in report["install"]:
        if "dir_info" in item["download_info"]:  # this package itself
            continue
        name, version = item["metadata"]["name"].lower().replace("_", "-"), item["metadata"]["version"]
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return "".join(sorted(lines))


if __name__ == "__main__":
    sys.stdout.write(locked(json.load(sys.stdin)))
