"""Where a result came from: commit, versions, device."""

import functools
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from lsce.machine import paths


@functools.cache
def commit() -> str | None:
    """The checkout's commit, with "-dirty" if a tracked file differs other than recorded results
    and figures; outside a checkout the environment variable LSCE_COMMIT, or None."""
    git = ["git", "-C", str(paths.ROOT)]
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=30)
    try:
        head = run([*git, "rev-parse", "--short=12", "HEAD"], check=True)
        changed = run([*git, "diff", "--quiet", "HEAD", "--", ".", ":!data/recorded", ":!figures"])
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("LSCE_COMMIT")
    return head.stdout.strip() + "-dirty" * bool(changed.returncode)


def versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "numpy", "pandas")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


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
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    model = re.search(r"^model name.*?:(.*)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()
