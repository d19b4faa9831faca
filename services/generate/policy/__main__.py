"""Check a policy file: ``python -m services.generate.policy [--against OLD] [FILE]``.

The packaged policy where no file is given; exit code 1 where it is wrong. OLD is the policy before
it: then the changes of its models' states are told, too, and one that may not be is wrong. What
`refdesk policy lint` runs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.generate.policy.file import Admit, PolicyError, admit_any, default_policy, load
from services.generate.policy.lifecycle import illegal, states_of, transitions
from services.generate.policy.lint import Finding
from services.generate.policy.schema import Policy
from services.generate.policy.servers import unexpected
from services.generate.routing.in_force import read_named_router, router_file
from services.generate.tiers.configured import served_tiers
from shared.errors import StartupError
from shared.settings import load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is in a good policy, or what is wrong with it, a line each; the exit code."""
    parser = argparse.ArgumentParser(prog="refdesk policy lint")
    parser.add_argument("--against", type=Path)
    parser.add_argument("file", type=Path, nargs="?")
    asked = parser.parse_args(arguments)
    try:
        old = load(asked.against) if asked.against else None
        served = served_tiers(load_settings())
        follows = after(old) if old else admit_any

        def admit(policy: Policy) -> list[Finding]:
            router = router_file(policy, asked.file.parent) if asked.file else None
            return read_named_router(router)[1] or unexpected(policy, served) or follows(policy)

        policy = load(asked.file, admit) if asked.file else default_policy(admit)
    except StartupError as error:
        print(error, file=sys.stderr)
        return 1
    except PolicyError as error:
        for finding in error.findings:
            print(finding, file=sys.stderr)
        return 1
    for change in transitions(states_of(old), policy) if old else ():
        print(change)
    print(
        f"{len(policy.rules)} rules, {len(policy.models)} models in {len(policy.tiers)} tiers, "
        f"{len(policy.classes)} classes; SHA-256 {policy.fingerprint}"
    )
    return 0


def after(old: Policy) -> Admit:
    """What admits the policies that may follow `old`."""
    known = states_of(old)
    return lambda policy: illegal(transitions(known, policy))


if __name__ == "__main__":
    sys.exit(main())
