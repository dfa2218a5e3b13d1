"""Settle a network's recipe on validation, separately for ε = 0 and for ε > 0, with equal effort.

    python benchmarks/settle_recipe.py --network resnet18 --epochs 6 --budget 9 --out FOLDER

Trains every learning rate × batch size × weight decay of the grid with each ε, all arms of a
setting before the next, best guess first, until the budget (minutes) would not hold another
setting. Stopped and started again with the same FOLDER it goes on. It prints, and writes to
FOLDER/settings.csv, each setting's validation accuracy and NLL, training accuracy and seconds, and
the setting that each ε would choose by validation accuracy. Nothing here reads the test split.
"""

import argparse
import itertools
import time
from pathlib import Path

import pandas as pd

from lsce import data
from lsce.results.store import Store
from lsce.sweeps import sweep
from lsce.training.methods import Smoothing
from lsce.training.spec import Balanced, Recipe, RunSpec


def settings(arguments: argparse.Namespace) -> list[list[RunSpec]]:
    """One list a setting, with a run for each ε and seed."""
    grid = []
    for decay, batch, rate in itertools.product(
        arguments.decays, arguments.batches, arguments.rates
    ):
        recipe = Recipe(
            batch_size=batch,
            peak_learning_rate=rate * batch / 128,  # the rate that keeps a step's noise alike
            weight_decay=decay,
        )
        grid.append(
            [
                RunSpec(
                    data=arguments.data,
                    sample=Balanced(train_size=arguments.train_size),
                    method=Smoothing(epsilon=epsilon),
                    network=arguments.network,
                    recipe=recipe,
                    epochs=arguments.epochs,
                    monitor_size=100,
                    seed=seed,
                )
                for epsilon in arguments.epsilons
                for seed in range(arguments.seeds)
            ]
        )
    return grid


def table(specs: list[RunSpec], store: Store) -> pd.DataFrame:
    """A row a run that is there."""
    rows = []
    for spec in specs:
        if spec in store:
            run = store.load(spec)
            rows.append(
                {
                    "epsilon": spec.method.setting,
                    "peak_learning_rate": spec.recipe.peak_learning_rate,
                    "batch_size": spec.recipe.batch_size,
                    "weight_decay": spec.recipe.weight_decay,
                    "seed": spec.seed,
                    "status": run.status,
                    "validation_accuracy": run.scalars.get("validation_accuracy"),
                    "validation_nll": run.scalars.get("validation_nll"),
                    "train_accuracy": run.scalars.get("train_accuracy"),
                    "training_seconds": run.origin["seconds"]["training"],
                    "device": run.origin["device"],
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--train-size", type=int, default=45_000)
    rates = "peak learning rates at batch 128; larger batches get more, in proportion"
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.1, 0.2, 0.05, 0.4, 0.025], help=rates
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--decays", type=float, nargs="+", default=[5e-4, 2e-4])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=float, default=9.0, help="minutes")
    parser.add_argument("--data", default="cifar-100", choices=data.names())
    parser.add_argument("--source", type=Path, help="CIFAR-100 that is already on disk")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data.load(arguments.data, arguments.source)
    store, end = Store(arguments.out / "runs"), time.monotonic() + 60 * arguments.budget
    grid = settings(arguments)
    longest = 0.0
    for specs in grid:
        start = time.monotonic()
        if start + longest > end:
            break
        sweep.ensure(specs, store=store)
        longest = max(longest, time.monotonic() - start)
    runs = table([spec for specs in grid for spec in specs], store)
    runs.to_csv(arguments.out / "settings.csv", index=False)
    keys = ["epsilon", "peak_learning_rate", "batch_size", "weight_decay"]
    means = runs.drop(columns=["seed", "status", "device"]).groupby(keys).mean().reset_index()
    print(means.sort_values(["epsilon", "validation_accuracy"]).to_string(index=False))
    for epsilon, part in means.groupby("epsilon"):
        best = part.loc[part["validation_accuracy"].idxmax()]
        print(
            f"ε = {epsilon:g}: {len(part)} of {len(grid)} settings tried; best is peak learning "
            f"rate {best.peak_learning_rate:g}, batch {best.batch_size:g}, weight decay "
            f"{best.weight_decay:g}: validation accuracy {best.validation_accuracy:.3f}"
        )


if __name__ == "__main__":
    main()
