"""The table of speeds, in one command.

    python -m benchmarks --threads 2 --output now.json --compare before.json

Measures the parts of `benchmarks.table`, prints what must be, what is aimed at and what
was measured, and writes JSON with the machine, the versions and the load. With
``--compare`` each line shows what an earlier file says. Peers (segment-anything, timm)
are those of `scripts/oracles.txt`.
"""

import argparse
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.encoder_decoder import machine
from benchmarks.process import CLOCKS
from benchmarks.table import PARTS, Row, Setting

HEAD = f"{'what':<42}{'must':>8}{'aim':>8}{'measured':>10}{'before':>10}  note"


def line(row: Row, before: float | None) -> str:
    """One line of the printed table."""
    shown = [
        "-" if value is None else f"{value:.3g} {row.unit}"
        for value in (row.must, row.aim, row.measured, before)
    ]
    mark = {True: "", False: " MISSED:", None: " not measured:"}[row.is_reached]
    must, aim, measured, earlier = shown
    return (
        f"{row.what:<42}{must:>8}{aim:>8}{measured:>10}{earlier:>10} {mark} {row.note}"
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--micro-sam", help="a Python that can import micro_sam")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--compare", type=Path, help="JSON of an earlier run")
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {sorted(unknown)}; the parts are {', '.join(PARTS)}")
    return given


def main() -> None:
    """Measure part after part; the file is written anew after each."""
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    how = Setting(given.rounds, given.clock, given.micro_sam)
    facts = machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    facts |= {name: version(name) for name in ("numpy", "zarr")}
    facts |= {"clock": given.clock, "rounds": given.rounds}
    before = {}
    if given.compare:
        rows = json.loads(given.compare.read_text())["rows"]
        before = {row["what"]: row["measured"] for row in rows}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(HEAD, flush=True)
    found: list[Row] = []
    for part in given.parts or PARTS:
        with torch.inference_mode():
            for row in PARTS[part](how):
                found.append(row)
                print(line(row, before.get(row.what)), flush=True)
        if given.output:
            record = {"machine": facts, "rows": [asdict(row) for row in found]}
            given.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
