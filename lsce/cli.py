"""`python -m lsce …`: what the Makefile's targets call."""

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def _duration(text: str) -> float:
    """Seconds, from "90s", "9m" or "2h"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} must be a time such as 90s, 9m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _folder(text: str) -> Path:
    """A path in which ~ stands for the user's home, which a shell leaves as it is in DATA='~/x'."""
    return Path(text).expanduser()


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number ≥ 1")
    return int(text)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lsce", description="The label smoothing report.")
    commands = parser.add_subparsers(required=True)

    def command(does: Callable[[argparse.Namespace], None], words: str) -> argparse.ArgumentParser:
        added = commands.add_parser(does.__name__.strip("_"), help=words, description=words)
        added.set_defaults(does=does)
        return added

    reproduce = command(_reproduce, "train what is missing and build the report")
    profiles = "smoke, quick, small, cpu, gpu or full (gpu with a GPU, else quick)"
    reproduce.add_argument("--profile", help=profiles)
    command(_report, "build the report from what is recorded, train nothing")
    record = command(_record, "train what the recorded results lack, in a given time")
    record.add_argument("--profile", help="whose runs to record (gpu with a GPU, else cpu)")
    record.add_argument("--budget", type=_duration, required=True, help="such as 9m")
    record.add_argument("--out", type=_folder, help="folder of the results (data/recorded)")
    plan = command(
        _plan, "what the runs of a profile take, in the order in which they are recorded"
    )
    plan.add_argument("--profile", default="cpu", help="whose runs (cpu)")
    merge = command(_merge, "add what `record` left to data/recorded")
    merge.add_argument("folders", type=_folder, nargs="+", metavar="DIR")
    verify = command(_verify, "retrain recorded runs drawn at random and compare")
    verify.add_argument("--runs", type=_count, default=3)
    verify.add_argument("--draw", type=int, help="seed of the draw (default: another every time)")
    longest = "leave out runs that take longer here (default: 10m)"
    verify.add_argument("--longest", type=_duration, default=600.0, help=longest)
    for trains in (reproduce, record, verify):
        trains.add_argument("--data", type=_folder, help="folder that holds CIFAR-100")
    cell = command(_cell, "print the cell of parameters of a notebook, as its study has it")
    cell.add_argument("notebook", metavar="NN_name")
    return parser.parse_args(argv)


# Each imports what it needs: `record` and `merge` run where only the training core is installed.


def _reproduce(arguments: argparse.Namespace) -> None:
    from lsce.commands.reproduce import reproduce

    _say_ready(reproduce(arguments.profile or None, arguments.data))


def _report(_: argparse.Namespace) -> None:
    from lsce.commands.reproduce import rerender

    _say_ready(rerender())


def _say_ready(index: Path) -> None:
    print(f"\nThe report is ready: open {index.as_uri()}")


def _record(arguments: argparse.Namespace) -> None:
    from lsce.commands import record
    from lsce.training.train import default_device

    usual = "gpu" if default_device().type == "cuda" else "cpu"
    record.step_aside()
    record.record(arguments.profile or usual, arguments.budget, arguments.out, arguments.data)


def _plan(arguments: argparse.Namespace) -> None:
    from lsce.commands import plan

    plan.plan(arguments.profile)


def _merge(arguments: argparse.Namespace) -> None:
    from lsce.commands import record

    record.merge(arguments.folders)


def _verify(arguments: argparse.Namespace) -> None:
    from lsce.commands import verify

    draw = int.from_bytes(os.urandom(2)) if arguments.draw is None else arguments.draw
    if not verify.verify(arguments.runs, draw, arguments.longest, arguments.data):
        sys.exit(1)


def _cell(arguments: argparse.Namespace) -> None:
    from lsce.studies.cells import cell

    print(cell(arguments.notebook))


def main(argv: list[str] | None = None) -> None:
    """Run a command; what goes wrong ends in one sentence and exit status 1 (2: wrong input)."""
    arguments = _arguments(argv)
    # PyTorch's notes on a missing GPU and the like would only hide what we say.
    warnings.filterwarnings("ignore", category=UserWarning)
    logging.disable(logging.WARNING)
    try:
        arguments.does(arguments)
    except KeyboardInterrupt:
        sys.exit("lsce: stopped; finished runs are kept, and the same command goes on from there")
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("LSCE_DEBUG"):
            raise
        print(f"lsce: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError | FileNotFoundError) else 1)
