"""Does a smoothed teacher teach worse, and does smoothing take a teacher's place?"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import pandas as pd
from pydantic import model_validator

from lsce.judging.claims import MAIN
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
from lsce.studies.study import Labelled, Study, smoothed, trained
from lsce.training.methods import Distillation, Smoothing


class DistillationParameters(Parameters):
    teacher_run: Regime = parameter(
        Regime(network="resnet6", train_size=45000, epochs=2, monitor_size=1000),
        "what the teachers are (see lsce.studies.Regime)",
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
            count = len(self.temperatures)
            wanted = f"{count} values, as many as there are temperatures, for equal tuning"
            raise ValueError(
                f"student_epsilons is {list(self.student_epsilons)}; it must be {wanted}"
            )
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
        p = self.parameters
        teachers, keep = {"teachers": p.teacher_run}, ("information",)
        yield from smoothed("teachers", p.data_name, teachers, p.of_teachers, p.seeds, keep=keep)
        regime = f"{p.student_run.network} from {p.teacher_run.network}"
        alone = {regime: p.student_run}
        yield from smoothed(MAIN, p.data_name, alone, [0.0, *p.student_epsilons], p.seeds)
        for epsilon, seed in itertools.product(p.of_teachers, p.seeds):
            teacher = p.teacher_run.spec(p.data_name, seed, Smoothing(epsilon=epsilon))
            for temperature in p.temperatures:
                method = Distillation(teacher=teacher, temperature=temperature)
                (label,) = trained(MAIN, p.data_name, alone, [method], [seed])
                if epsilon not in (0.0, p.judged):  # these have a name; others say their ε
                    name = f"distilled, teacher with ε = {epsilon:g}"
                    label = replace(label, method=name, arm=f"{name}, T = {temperature:g}")
                yield label

    def errors(self, main: Evidence) -> pd.DataFrame:
        """The student's error by arm."""
        return tables.compared(main.table, "top1_error", self.chosen_by)

    def by_smoothness(self, main: Evidence) -> pd.DataFrame:
        """Test accuracy against the smoothness of the targets that a network learned from (γ of
        Müller et al. 2019): columns panel, arm, smoothness, seed and value."""
        students = main.table
        alone = students["method"] == "smoothing"
        parts: list[pd.DataFrame] = []
        for arm, rows in (
            ("teacher", main.others["teachers"].table),
            ("student, smoothed alone", students[alone]),
            *students[~alone].groupby("method", sort=False),
        ):
            if "distilled" in str(arm):
                # The seeds' teachers differ a little; their mean keeps them together.
                smoothness = rows.groupby("arm")["smoothness"].transform("mean")
                arm = str(arm).replace("distilled", "student")
            else:
                smoothness = rows["epsilon"] * rows["classes"] / (rows["classes"] - 1)
            part = rows[["seed"]].assign(smoothness=smoothness, value=rows["test_accuracy"])
            parts.append(part.assign(arm=arm, panel="test accuracy"))
        return pd.concat(parts, ignore_index=True)

    def teachers(self, main: Evidence) -> pd.DataFrame:
        """Accuracy, resemblance and information by the teacher's ε."""
        columns = [
            ("test_accuracy", "test accuracy", "teachers"),
            ("related_auroc", "resemblance (AUROC)", "teachers"),
            ("information_similar", "information (nats)", "teachers"),
        ]
        return tables.tidy(main.others["teachers"].table, columns)
