"""Musk1 as a table of bags: what ``histomil compare`` takes.

    python benchmarks/mil/musk1.py DATA/mil-musk1/musk1.data -o musk1
    histomil compare benchmarks/mil/musk1.toml --data musk1 -o musk1/results

Musk (version 1) of the UCI repository, CC BY 4.0: a bag is a molecule, an instance one of its
shapes (166 distances), and a molecule smells of musk if one of its shapes does.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import h5py
import numpy as np

LABELS = {"0": "no musk", "1": "musk"}


def main() -> None:
    """Write ``bags.csv`` and an HDF5 file for each molecule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="musk1.data (or musk2.data), as UCI has it")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    instances: dict[str, list[list[float]]] = {}
    label: dict[str, str] = {}
    for line in args.file.read_text(encoding="utf-8").split():
        molecule, _shape, *values = line.rstrip(".").split(",")
        instances.setdefault(molecule, []).append([float(v) for v in values[:-1]])
        label[molecule] = max(label.get(molecule, "0"), values[-1])
    (args.output / "bags").mkdir(parents=True, exist_ok=True)
    with (args.output / "bags.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["bag", "label"])
        for molecule, rows in instances.items():
            with h5py.File(args.output / "bags" / f"{molecule}.h5", "w") as file:
                file["features"] = np.array(rows, np.float32)
            table.writerow([f"bags/{molecule}.h5", LABELS[label[molecule]]])
    print(args.output / "bags.csv")


if __name__ == "__main__":
    main()
