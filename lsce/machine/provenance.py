"""Where a result came from: commit, versions, device."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from lsce.machine import paths

PACKAGES = ("torch", "torchvision", "numpy", "pandas")


#: What a recorder writes itself, and what is drawn from it.
_WRITTEN = (":!data/recorded", ":!figures")


@functools.cache
def commit() -> str | None:
    """The checkout's commit, with "-dirty" if a tracked file differs, recorded results and figures
    aside.

    Outside a checkout it is what the environment variable LSCE_COMMIT says, else None.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None or head.returncode:
        return os.environ.get("LSCE_COMMIT")
    changed = _git("diff", "--quiet", "HEAD", "--", ".", *_WRITTEN)
    return head.stdout.strip() + "-dirty" * bool(changed and changed.returncode)


def _git(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    command = ["git", "-C", str(paths.ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


@functools.cache
def device_name(kind: str) -> str:
    """The product name of the device of a kind ("cuda" or "cpu"); a CPU's with the fastest of its
    matrix instructions, since one name is sold with and without them."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    instructions = fast_bfloat16()
    return _processor() + (f", {instructions}" if instructions else "")


def fast_bfloat16() -> str | None:
    """The CPU's instructions that multiply bfloat16, None if it has none."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
