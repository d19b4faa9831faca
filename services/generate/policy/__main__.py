"""Check a policy file: ``python -m services.generate.policy FILE``; exit code 1 where it is wrong.

What `refdesk policy lint` runs.
"""

import sys
from pathlib import Path

from services.generate.policy.file import PolicyError, default_policy, load


def main(arguments: list[str]) -> int:
    """Print the fingerprint of a good policy, or what is wrong with it, a line each."""
    try:
        policy = load(Path(arguments[0])) if arguments else default_policy()
    except PolicyError as error:
        for finding in error.findings:
            print(finding, file=sys.stderr)
        return 1
    print(
        f"{len(policy.rules)} rules, {len(policy.models)} models in {len(policy.tiers)} tiers, "
        f"{len(policy.classes)} classes; SHA-256 {policy.fingerprint}"
    )
    return 0


sys.exit(main(sys.argv[1:]))
