"""Progress with the time left: a bar on a terminal, a plain line now and then elsewhere."""

import shutil
import sys
import time

from tqdm import tqdm

#: Seconds between two plain lines.
INTERVAL = 30.0


def duration(seconds: float) -> str:
    """Seconds in words, e.g. "45 s", "7 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Counts seconds of expected work, of which `total` are to be done.

    The time left is the rest of the work at the pace of the work done so far.
    """

    def __init__(self, what: str, total: float, runs: int):
        self.what, self.total, self.runs = what, total, runs
        self.done, self.finished = 0.0, 0
        self.start = self.last_line = time.monotonic()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"
        self.bar = None
        if sys.stderr.isatty():
            # tqdm shows nothing on a terminal that gives its size as 0; this falls back to 80 × 24.
            columns, rows = shutil.get_terminal_size()
            self.bar = tqdm(total=total, desc=what, bar_format=form, ncols=columns, nrows=rows)

    def advance(self, work: float, finished: int = 0) -> None:
        """`work` seconds of expected work and `finished` runs more are done."""
        self.done += work
        self.finished += finished
        if self.bar is not None:
            self.bar.set_postfix_str(f"{self.finished} of {self.runs} runs", refresh=False)
            self.bar.update(work)
        elif time.monotonic() - self.last_line >= INTERVAL and self.done > 0:
            self.last_line = time.monotonic()
            print(self._line(), flush=True)

    def _line(self) -> str:
        elapsed = time.monotonic() - self.start
        left = elapsed * max(0.0, self.total - self.done) / self.done
        share = min(1.0, self.done / self.total)
        return (
            f"{self.what}: {share:.0%}, {self.finished} of {self.runs} runs done, "
            f"{duration(left)} left"
        )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
