"""`make bench`: every benchmark on this machine, as a table, and a CSV and a JSON file of it.

    python benchmarks/run.py [--quick] [--only NAME ...] [--out FOLDER]

The files are named after the machine. A benchmark that has run to its end replaces its own rows in
the CSV file and its own entry in the JSON file, which says what its numbers rest on; those of the
others stay. One that cannot run says so in a sentence, and the rest goes on.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read at import: the profiler is chatty

import pandas as pd
import torch
from pairing import Row

from lsce.machine import paths, provenance
from lsce.sweeps import sweep
from lsce.training.train import default_device

BENCHMARKS = ["training", "sweep", "loss", "evaluation"]
#: Packages measured beside ours, whose versions matter too.
RIVALS = ["timm", "torchmetrics", "netcal"]
WIDTHS = {
    "benchmark": 30, "case": 46, "against": 30, "quantity": 17, "ours": 10, "theirs": 10,
    "ratio": 24, "n": 4,
}  # fmt: skip
NUMBERS = {"ours", "theirs", "ratio", "n"}


def machine() -> dict[str, str | int]:
    device = default_device()
    return {"device": provenance.device_name(device.type), "cores": sweep.cores()}


def slug(device: str, cores: int) -> str:
    """A file name for a machine: "Intel(R) Xeon(R) Processor", 2 → intel-xeon-processor-2-cores."""
    plain = re.sub(r"\((r|tm)\)", "", f"{device} {cores} cores".lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def versions() -> dict[str, str]:
    found = provenance.versions()
    for name in RIVALS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def line(cells: list[str]) -> str:
    """The cells of a row of the table, words to the left and numbers to the right."""
    columns = zip(WIDTHS.items(), cells, strict=True)
    aligned = [f"{cell:{'>' if name in NUMBERS else '<'}{n}}" for (name, n), cell in columns]
    return "  ".join(aligned).rstrip()


def amount(value: float) -> str:
    return f"{value:,.0f}" if 1e3 <= value < 1e9 else f"{value:.4g}"


def cells(row: Row) -> list[str]:
    ratio = f"{row.ratio:.3g} ({row.ratio_low:.3g} to {row.ratio_high:.3g})"
    words = [row.benchmark, row.case, row.rival, row.quantity]
    return [*words, amount(row.ours), amount(row.theirs), ratio, str(row.n)]


def run(name: str, *, quick: bool) -> list[Row]:
    """The rows of one benchmark, each printed when it is there."""
    found = []
    for row in importlib.import_module(f"bench_{name}").rows(quick=quick):
        print(line(cells(row)), flush=True)
        found.append(row)
    return found


def save(name: str, rows: list[Row], seconds: float, load: float, out: Path) -> Path:
    """Put the rows and what they rest on into the machine's files; returns the CSV file.

    `load` is how many processes wanted a core in the minute before the benchmarks started.
    """
    here = machine()
    out.mkdir(parents=True, exist_ok=True)
    table = out / f"{slug(here['device'], here['cores'])}.csv"
    about = table.with_suffix(".json")
    frame = pd.DataFrame([{"module": name} | asdict(row) for row in rows])
    entries = {}
    if table.is_file():
        before = pd.read_csv(table)
        others = [other for other in BENCHMARKS if other != name]
        frame = pd.concat([before[before["module"].isin(others)], frame])
        frame = frame.sort_values("module", key=lambda m: m.map(BENCHMARKS.index), kind="stable")
        entries = json.loads(about.read_text(encoding="utf-8"))["modules"]
    entries[name] = {
        "versions": versions(),
        "commit": provenance.commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "seconds": round(seconds, 1),
        "load": round(load, 2),
    }
    entries = {known: entries[known] for known in BENCHMARKS if known in entries}
    frame.to_csv(table, index=False, float_format="%.6g")
    text = json.dumps({"machine": here, "modules": entries}, indent=2, ensure_ascii=False)
    about.write_text(text + "\n", encoding="utf-8")
    return table


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal; its numbers mean nothing"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=BENCHMARKS, default=BENCHMARKS,
                        help=f"run only these of {', '.join(BENCHMARKS)}")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the files go")
    chosen = parser.parse_args(argv)
    if chosen.out is None:
        chosen.out = paths.BUILD / "bench" if chosen.quick else paths.BENCHMARKS
    if chosen.quick and chosen.out.resolve() == paths.BENCHMARKS.resolve():
        parser.error("--out is the folder of the results, where numbers of --quick do not belong")
    return chosen


def main(argv: list[str] | None = None) -> None:
    chosen = arguments(argv)
    here, load = machine(), os.getloadavg()[0]
    print(f"{here['device']}, {here['cores']} cores, torch {torch.__version__}")
    print("Medians; the ratio is ours / theirs, turn by turn, with its quartiles.")
    print("Of time and memory less is better, of all else more.")
    if load > 0.5:
        print(
            f"The machine is busy (load {load:.1f}), which slows what uses many threads the most."
        )
    if chosen.quick:
        print("A rehearsal: these numbers mean nothing.")
    print("\n" + line(list(WIDTHS)), flush=True)
    table, failed = None, []
    for name in [name for name in BENCHMARKS if name in chosen.only]:
        start = time.monotonic()
        try:
            rows = run(name, quick=chosen.quick)
        except ImportError as error:
            print(f"{name} is left out: {error}.", flush=True)
        except Exception as error:  # what went before must not be lost, nor what comes after
            failed.append(name)
            print(f"{name} stopped with {type(error).__name__}: {error}", flush=True)
        else:
            if rows:
                table = save(name, rows, time.monotonic() - start, load, chosen.out)
    if table is not None:
        print(f"\nThe table is in {table}")
    if failed:
        sys.exit(f"{' and '.join(failed)} did not run to the end; nothing of it was saved")


if __name__ == "__main__":
    main()
