"""Ask for the known vulnerabilities of the pinned packages, by pip-audit (``make audit``).

Exit code 1 where there are any. Where the advisories cannot be had that is said, and the exit code is 0: a machine
without a network is no fault of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 240


def verdict(dependencies: list[dict[str, Any]]) -> tuple[int, str]:
    """The exit code, and what to say of pip-audit's findings.

    >>> verdict([{"name": "toy", "skip_reason": "not found"}])
    (0, 'No advisories could be had for any of 1 packages: nothing was audited.')
    >>> vulnerable = {"name": "toy", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    >>> verdict([vulnerable, {"name": "other", "version": "1", "vulns": []}])
    (1, '2 of 2 packages audited.\\ntoy 1: CVE-1, mended in 2')
    """
    audited = [one for one in dependencies if "vulns" in one]
    if not audited:
        return 0, f"No advisories could be had for any of {len(dependencies)} packages: nothing was audited."
    found = [
        f"{one['name']} {one['version']}: {vulnerability['id']}, mended in {', '.join(vulnerability['fix_versions'])}"
        for one in audited
        for vulnerability in one["vulns"]
    ]
    return int(bool(found)), "\n".join([f"{len(audited)} of {len(dependencies)} packages audited.", *found])


def main() -> int:
    """Audit ``constraints.txt``."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        dependencies = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"No answer from the advisory service within {SECONDS} s: nothing was audited.")
        return 0
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"pip-audit could not be done: nothing was audited ({said}).")
        return 0
    code, text = verdict(dependencies)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
