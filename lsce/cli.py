"""`python -m lsce …`: what the Makefile's targets call."""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lsce", description="The label smoothing report.")
    commands = parser.add_subparsers(dest="command", required=True)
    whole = commands.add_parser("reproduce", help="train what is missing and build the report")
    whole.add_argument("--profile", help="smoke, quick or paper (paper with a GPU, else quick)")
    whole.add_argument("--data", type=Path, help="folder that holds CIFAR-100")
    commands.add_parser("report", help="build the report from what is recorded, train nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run a command; what goes wrong ends in one sentence and exit status 1 (2: wrong input)."""
    arguments = _arguments(argv)
    # PyTorch's notes on a missing GPU and the like would only hide what we say.
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.disable(logging.WARNING)

    from lsce import reproduce  # heavy, and not needed for --help

    try:
        if arguments.command == "reproduce":
            index = reproduce.reproduce(arguments.profile or None, arguments.data)
        else:
            index = reproduce.rerender()
    except KeyboardInterrupt:
        sys.exit("lsce: stopped; finished runs are kept, and the same command goes on from there")
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("LSCE_DEBUG"):
            raise
        wrong_input = isinstance(error, ValueError | FileNotFoundError)
        print(f"lsce: {error}", file=sys.stderr)
        sys.exit(2 if wrong_input else 1)
    print(f"\nThe report is ready: open {index.as_uri()}")
