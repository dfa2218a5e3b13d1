"""Progress with the time left: a bar on a terminal, a plain line now and then elsewhere."""

import shutil
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

    The time left is that of the remaining work at the pace so far.
    """

    def __init__(self, what: str, total: float, runs: int):
        self.what, self.total, self.runs = what, total, runs
        self.done, self.finished = 0.0, 0
        self.start = self.last_line = time.monotonic()
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left{postfix}"
        # tqdm shows nothing on a terminal that gives its size as 0; this falls back to 80 × 24.
        columns, rows = shutil.get_terminal_size()
        self.bar = tqdm(
            total=total, desc=what, bar_format=form, ncols=columns, nrows=rows, disable=None
        )

    def advance(self, work: float, finished: int = 0) -> None:
        """`work` seconds of expected work and `finished` runs more are done."""
        self.done += work
        self.finished += finished
        runs, now = f"{self.finished} of {self.runs} runs", time.monotonic()
        self.bar.set_postfix_str(runs, refresh=False)
        self.bar.update(work)
        if self.bar.disable and now - self.last_line >= INTERVAL and self.done > 0:
            self.last_line = now
            left = (now - self.start) * max(0.0, self.total - self.done) / self.done
            share = min(1.0, self.done / self.total)
            print(f"{self.what}: {share:.0%}, {runs} done, {duration(left)} left", flush=True)

    def close(self) -> None:
        self.bar.close()
