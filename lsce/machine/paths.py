"""Every path of the project, so that no other file spells one out."""

import os
from pathlib import Path

#: The checkout: the folder that holds `notebooks/`, `data/`, `figures/` and the Makefile.
ROOT = Path(os.environ.get("LSCE_ROOT", Path(__file__).resolve().parents[2]))

NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"

DATA = ROOT / "data"
#: CIFAR-100 as fetched, in torchvision's archive layout or as Parquet (ignored by git).
CIFAR100 = DATA / "cifar-100"
#: Decoded images (ignored by git).
CACHE = DATA / "cache"
#: This machine's records (ignored by git).
RUNS = DATA / "runs"
#: The recorded results that come with the project.
RECORDED = DATA / "recorded"
#: The literature's numbers, the places that they stand in, and how its networks were trained.
PUBLISHED = DATA / "published.csv"
SOURCES = DATA / "sources.csv"
RECIPES = DATA / "recipes.csv"
#: The labels that people gave CIFAR-100's training images (CIFAR-100N), counted by true class.
CIFAR100N_COUNTS = DATA / "cifar-100n-transitions.csv"
#: The label that a person gave each of them, CIFAR-100N's own file (ignored by git).
CIFAR100N_LABELS = DATA / "CIFAR-100_human.pt"

#: Of the recorded results, and of this machine's runs in a folder a profile (ignored by git).
FIGURES = ROOT / "figures"
#: What `make bench` measured, a CSV file and a JSON file a machine.
BENCHMARKS = ROOT / "benchmarks" / "results"
#: The report's configuration, and what is built from it (ignored by git).
REPORT = ROOT / "report"
BUILD = ROOT / "build"
HTML = BUILD / "html"


def beside(file: Path) -> Path:
    """Where this process writes a file before moving it into place."""
    return file.with_name(f".{file.name}.{os.getpid()}")
