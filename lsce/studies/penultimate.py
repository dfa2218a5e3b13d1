"""What does smoothing do to the penultimate layer, and to what its features can still tell?"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Self

import pandas as pd
from pydantic import model_validator

from lsce import data
from lsce.judging.claims import MAIN
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import ComparedParameters, Names, parameter
from lsce.studies.study import Labelled, Study


class SeenParameters(ComparedParameters):
    seen_classes: int = parameter(
        80, "classes of the networks of the compared regimes that never see the others", ge=2
    )

    @model_validator(mode="after")
    def _check_seen(self) -> Self:
        most = data.entry(self.data_name).num_classes - 2  # the others are told apart, too
        if self.seen_classes > most:
            raise ValueError(f"seen_classes is {self.seen_classes}; it must be at most {most}")
        return self


def unseen_runs(study: Study, keep: str) -> Iterator[Labelled]:
    """The group "unseen": the compared regimes with some of the classes, at ε = 0 and at the judged
    ε."""
    p, epsilons = study.parameters, [0.0, study.judged]
    return study.smoothed("unseen", p.compared, epsilons, classes=p.seen_classes, keep=(keep,))


class PenultimateParameters(SeenParameters):
    similar_classes: Names | None = parameter(
        None, "three classes to project, by name; None: the data set's examples"
    )
    unlike_classes: Names | None = parameter(None, "three more; None: the data set's examples")

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        known = set(data.entry(self.data_name).classes)
        for name in ("similar_classes", "unlike_classes"):
            three = getattr(self, name)
            if three is not None and not (len(set(three)) == 3 and set(three) <= known):
                wanted = f"three names of classes of {self.data_name}, or None"
                raise ValueError(f"{name} is {list(three)}; it must be {wanted}")
        return self

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The three classes of each projection."""
        examples = data.entry(self.data_name).examples
        return {
            "similar": self.similar_classes or tuple(examples["similar"]),
            "unlike": self.unlike_classes or tuple(examples["unlike"]),
        }


class Penultimate(Study):
    """Every ε in every regime, with features and information kept; and the group "unseen"."""

    Parameters = PenultimateParameters
    by_image = True
    columns = {
        "log_scatter_ratio": "log₁₀ scatter ratio",
        "log_nc1": "log₁₀ NC1",
        "nc2": "NC2",
        "nc3": "NC3",
        "nc4": "NC4",
        "superclass_probe": "superclass probe",
        "superclass_probe_usual": "superclass probe, C = 1",
        "information_similar": "information",
    }
    percent = {"nc4", "superclass_probe", "superclass_probe_usual"}

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        yield from self.smoothed(MAIN, p.regimes, p.epsilons, keep=("features", "information"))
        yield from unseen_runs(self, "features")

    def projections(self, main: Evidence) -> pd.DataFrame:
        """The first seed's projections in the first regime, at ε = 0 and at the judged ε: columns
        x, y, row, column and name."""
        first, classes, parts = (main.regimes[0], main.seeds[0]), self.parameters.classes, []
        for label, run in main.pairs:
            if (label.regime, run.spec.seed) != first or not self.decisive(label) or run.diverged:
                continue
            for group, split in itertools.product(classes, ("train", "validation")):
                row = f"{group} classes\n{'training' if split == 'train' else split}"
                points = run.projections[f"{group}.{split}"]
                for name, cloud in zip(classes[group], points, strict=True):
                    part = pd.DataFrame(cloud, columns=["x", "y"])
                    parts.append(part.assign(row=row, column=label.arm, name=name))
        return pd.concat(parts, ignore_index=True)

    def collapse(self, main: Evidence) -> pd.DataFrame:
        columns = [(name, words, "{regime}") for name, words in self.columns.items()]
        return tables.tidy(main.table, columns[:5])

    def transfer(self, main: Evidence) -> pd.DataFrame:
        """Accuracy of linear probes with the strength chosen on validation images, and with the
        usual one."""
        groups, parts = {"superclass_probe": main, "unseen_probe": main.others["unseen"]}, []
        for suffix, strength in {"": "strength chosen", "_usual": "usual strength"}.items():
            for name, words in self._probed().items():
                column = (f"{name}{suffix}", f"{words}, {strength}", "{regime}")
                parts.append(tables.tidy(groups[name].table, [column]))
        return pd.concat([part for part in parts if len(part)], ignore_index=True)

    def probes(self, main: Evidence) -> pd.DataFrame:
        """Accuracy of linear probes by their strength, for few values of ε."""
        shown = tables.few(self.epsilons, self.judged)
        parts = [
            tables.details(group, "probe", "strength") for group in (main, *main.others.values())
        ]
        numbers = pd.concat(parts, ignore_index=True)
        numbers = numbers[numbers["epsilon"].isin(shown)]
        numbers["case"] = numbers["case"].map(self._probed())
        return tables.panelled(numbers, "regime", "case")

    def _probed(self) -> dict[str, str]:
        """What linear probes tell apart, in words, by their names."""
        superclasses = len(data.entry(self.parameters.data_name).superclasses)
        return {
            "superclass_probe": f"{superclasses} superclasses",
            "unseen_probe": "classes never seen",
        }

    def information(self, main: Evidence) -> pd.DataFrame:
        return tables.mean_histories(main, ["information_similar", "information_unlike"])
