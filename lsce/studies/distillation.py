"""Does a smoothed teacher teach worse, and does smoothing take a teacher's place?"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Self

import pandas as pd
from pydantic import model_validator

from lsce.judging.arms import Arm, plain
from lsce.judging.claims import MAIN, Claim
from lsce.results.run import Run
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import (
    Epsilon,
    Epsilons,
    Parameters,
    Positive,
    Regime,
    Some,
    judged_of,
    parameter,
)
from lsce.studies.study import Labelled, Study, table_of
from lsce.training.methods import Distillation, Smoothing

#: From this test accuracy on a plain teacher of 100 classes is worth having. The number is the
#: project's own: two points below the worst of the five that are recorded of the profile `cpu`, and
#: far above those of `small`, of which nothing can be said (33%).
TEACHER = 0.62

#: The panels of `DistillationStudy.by_temperature`.
ERROR, DIFFERENCE = "top-1 error", "top-1 error, less that of a plain teacher's student"


class DistillationParameters(Parameters):
    teacher_run: Regime = parameter(
        Regime(network="resnet6", train_size=45000, epochs=2, monitor_size=1000),
        "what the teachers are (see lsce.studies.parameters.Regime)",
    )
    student_run: Regime = parameter(
        Regime(network="resnet6-half", train_size=45000, epochs=1, monitor_size=1000),
        "what the students are",
    )
    teacher_epsilons: Epsilons | None = parameter(
        None, "ε of the teachers, 0 and the judged one among them; None: these two"
    )
    temperatures: Some[Positive] = parameter((4.0,), "temperatures of the distillation")
    student_epsilons: Epsilons = parameter(
        (0.1,), "ε of students without a teacher: as many values as temperatures"
    )
    judged_epsilon: Epsilon | None = parameter(
        None, "ε that claims compare with 0; None: of student_epsilons the nearest to 0.1"
    )

    @property
    def judged(self) -> float:
        return judged_of("student_epsilons", (0.0, *self.student_epsilons), self.judged_epsilon)

    @property
    def of_teachers(self) -> tuple[float, ...]:
        return self.teacher_epsilons or (0.0, self.judged)

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        judged_of("teacher_epsilons", self.of_teachers, self.judged)
        if len(self.student_epsilons) != len(self.temperatures):
            epsilons, count = list(self.student_epsilons), len(self.temperatures)
            wanted = f"{count} values, as many as there are temperatures, for equal tuning"
            raise ValueError(f"student_epsilons is {epsilons}; it must be {wanted}")
        return self


class DistillationStudy(Study):
    """Students of `student_run`: smoothed alone, and distilled at each temperature from teachers
    of `teacher_run` with each ε; and the group "teachers", which keep information.

    A student's teacher has its seed."""

    Parameters = DistillationParameters
    columns = {
        "train_accuracy": "training accuracy",
        "top1_error": "test error",
        "debiased_ce": "debiased CE",
        "debiased_ce_scaled": "debiased CE, scaled",
        "nll": "NLL",
        "related_auroc": "resemblance",
    }
    percent = {"train_accuracy", "top1_error"}

    def runs(self) -> Iterator[Labelled]:
        p, teachers = self.parameters, {"teachers": self.parameters.teacher_run}
        yield from self.smoothed("teachers", teachers, p.of_teachers, keep=("information",))
        student = {f"{p.student_run.network} from {p.teacher_run.network}": p.student_run}
        yield from self.smoothed(MAIN, student, [0.0, *p.student_epsilons])
        for epsilon, seed in itertools.product(p.of_teachers, p.seeds):
            teacher = p.teacher_run.spec(p.data_name, seed, Smoothing(epsilon=epsilon))
            methods = [Distillation(teacher=teacher, temperature=each) for each in p.temperatures]
            for label in self.trained(MAIN, student, methods, seeds=[seed]):
                if epsilon not in (0.0, p.judged):  # these have a name; others say their ε
                    name = f"distilled, teacher with ε = {epsilon:g}"
                    label = replace(label, method=name, arm=f"{name}, T = {label.setting:g}")
                yield label

    def table(self, pairs: Iterable[tuple[Labelled, Run]]) -> pd.DataFrame:
        """With `teacher_epsilon`, NaN of a run without a teacher."""
        pairs = list(pairs)
        teachers = [label.task.run.method.learns_from for label, _ in pairs]
        epsilons = [getattr(each.method, "epsilon") if each else math.nan for each in teachers]
        return table_of(pairs).assign(teacher_epsilon=epsilons)

    def objection(
        self, shown: Evidence, claim: Claim, regime: str, arms: tuple[Arm, Arm]
    ) -> str | None:
        """Of a teacher that has little to teach nothing can be said, nor of its students."""
        teacher, student = self.plain_accuracies(shown)
        said = f"plain teachers get {teacher:.1%} of the test images right"
        if not teacher > student:
            return f"{said}, and plain students {student:.1%}"
        if shown.own_runs[0].spec.num_classes == 100 and teacher < TEACHER:
            return f"{said}, less than the {TEACHER:.0%} from which a teacher is worth having"
        return None

    def plain_accuracies(self, main: Evidence) -> tuple[float, float]:
        """Test accuracy of plain teachers and of plain students, means over seeds."""
        teachers, students = main.others["teachers"].table, main.table
        first, second = (
            float(table.loc[plain(table), "test_accuracy"].mean()) for table in (teachers, students)
        )
        return first, second

    def errors(self, main: Evidence) -> pd.DataFrame:
        return tables.compared(main.table, "top1_error", self.chosen_by)

    def by_temperature(self, main: Evidence) -> pd.DataFrame:
        """The error of students by the temperature and their teacher's ε, and what it is less that
        of the plain teacher's student with the same temperature and seed: columns panel, arm,
        epsilon (the teacher's), temperature, seed and value."""
        taught = main.table.dropna(subset="teacher_epsilon")
        names = {"teacher_epsilon": "epsilon", "setting": "temperature", "top1_error": "value"}
        taught = taught[[*names, "seed"]].rename(columns=names)
        key = ["temperature", "seed"]
        others = taught[taught["epsilon"] > 0].set_index(key)
        of_plain = taught[taught["epsilon"] == 0].set_index(key)["value"]
        less = others.assign(value=others["value"] - of_plain.reindex(others.index)).reset_index()
        numbers = pd.concat([taught.assign(panel=ERROR), less.assign(panel=DIFFERENCE)])
        arm = numbers["epsilon"].map("teacher with ε = {:g}".format)
        return numbers.assign(arm=arm).reset_index(drop=True)

    def by_smoothness(self, main: Evidence) -> pd.DataFrame:
        """Test accuracy against the smoothness of the targets that a network learned from (γ of
        Müller et al. 2019): columns panel, arm, smoothness, seed and value."""
        table = pd.concat([main.others["teachers"].table, main.table], ignore_index=True)
        alone = table["method"] == "smoothing"
        arm = table["method"].str.replace("distilled", "student")
        arm = arm.mask(alone, "student, smoothed alone")
        smoothed = table["epsilon"] * table["classes"] / (table["classes"] - 1)
        # The seeds' teachers differ a little; their mean keeps them together.
        taught = table[~alone].groupby("arm")["smoothness"].transform("mean")
        return table[["seed"]].assign(
            smoothness=smoothed.mask(~alone, taught),
            value=table["test_accuracy"],
            arm=arm.mask(table["group"] == "teachers", "teacher"),
            panel="test accuracy",
        )

    def teachers(self, main: Evidence) -> pd.DataFrame:
        columns = [
            ("test_accuracy", "test accuracy", "teachers"),
            ("related_auroc", "resemblance (AUROC)", "teachers"),
            ("information_similar", "information (nats)", "teachers"),
        ]
        return tables.tidy(main.others["teachers"].table, columns)
