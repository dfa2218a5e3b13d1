"""`lsce plan`: what a profile's runs take, page by page, in the order of their recording."""

from collections import defaultdict
from collections.abc import Iterable

from lsce.commands.record import ordered
from lsce.results.recorded import Recorded
from lsce.results.run import Run
from lsce.studies.profiles import Profile
from lsce.sweeps import cost
from lsce.training.spec import Evaluation, Task


def plan(profile_name: str) -> None:
    """Print a table in Markdown: for each page and group of runs how many there are, how many are
    recorded, and the core-hours of the others. A run is counted where it comes first; evaluations
    are runs, too, and train networks again whose weights are not there, which is not counted."""
    have, counted = Recorded(), set[str]()
    rates = _rates(have)
    rows = [("page", "runs", "recorded", "core-hours to do"), ("---", "---:", "---:", "---:")]
    missing: list[Task] = []
    for notebook, study in ordered(Profile(profile_name)):
        for group, labelled in study.groups().items():
            both = (task for label in labelled for task in (label.task.run, label.task))
            tasks: dict[str, Task] = {task.id: task for task in both}
            new = [task for name, task in tasks.items() if name not in counted]
            counted.update(tasks)
            lacking = have.missing(new)
            if new:
                done, hours = str(len(new) - len(lacking)), f"{_hours(lacking, rates):.1f}"
                rows.append((f"{notebook}: {group}", str(len(new)), done, hours))
            missing += lacking
    done, hours = str(len(counted) - len(missing)), f"{_hours(missing, rates):.1f}"
    rows.append(("all", str(len(counted)), done, hours))
    print(f"Runs of the profile {profile_name}, most decisive first:\n")
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


def _rates(have: Iterable[Run]) -> dict[str, float]:
    """Operations in a second of a core by network, as recorded runs took; "" for all of them."""
    operations, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    for run in have:
        if not run.diverged and not isinstance(run.task, Evaluation):
            for name in (run.spec.network, ""):
                operations[name] += cost.operations(run.task)
                seconds[name] += run.seconds
    return {name: operations[name] / seconds[name] for name in operations}


def _hours(tasks: Iterable[Task], rates: dict[str, float]) -> float:
    seconds = (
        cost.operations(task) / rates.get(task.run.network, rates.get("", 1e10)) for task in tasks
    )
    return sum(seconds) / 3600
