"""Many runs of a study: every combination of some values, as jobs for an engine that exists.

    python -m experiments NAME --scan seed=0,1,2 --scan training.steps=500,1000 --out runs/scan

writes runs/scan/jobs.txt, a command a line, each with a run folder of its own, for `xargs`, job
arrays or submitit; `--run` runs them here, one after another. Called again, it makes one table of
the metrics of all that have finished, results.csv. Other options are those of the study.
"""

import csv
import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.study import Study, check_options, table
from jgen.estimate import Estimate
from jgen.files import atomic_path, make_folder

_HOW = """{num} jobs are in {file}. Start them, such as by one of
  xargs -d '\\n' -P 2 -I{{}} sh -c '{{}}' < {file}
  sbatch --array=1-{num} --wrap 'sh -c "$(sed -n ${{SLURM_ARRAY_TASK_ID}}p {file})"'
or with --run here; then the same command collects what they have found."""


class Job(NamedTuple):
    """One run: its values by field, its folder and the arguments behind the study's name."""

    values: dict[str, str]
    folder: Path
    argv: list[str]


def scan(study: Study, name: str, argv: Sequence[str]) -> None:
    """Write the jobs of a command line with --scan, run them if asked to, and collect results.

    Options that a study refuses are refused before anything is written.
    """
    try:
        fields, out, run, options = _parsed(argv)
        jobs = make_jobs(fields, out or Path("runs") / f"{name.replace('.', '-')}-scan", options)
        for job in jobs:
            check_options(study, job.argv)
    except ValueError as error:
        sys.exit(f"error: {error}")
    folder = make_folder(jobs[0].folder.parent)
    commands = [[sys.executable, "-m", "experiments", name, *job.argv] for job in jobs]
    with atomic_path(folder / "jobs.txt") as partial:
        partial.write_text("".join(shlex.join(command) + "\n" for command in commands))
    failed = [c for c in commands if subprocess.run(c, check=False).returncode] if run else []
    done = collect(jobs, folder / "results.csv")
    if done:
        print(_results(jobs, done))
        print(f"\n{len(done)} of {len(jobs)} runs have finished: {folder / 'results.csv'}")
    if len(done) < len(jobs) and not run:
        print(_HOW.format(num=len(jobs), file=shlex.quote(str(folder / "jobs.txt"))))
    if failed:
        sys.exit("these have failed:\n" + "\n".join(map(shlex.join, failed)))


def _parsed(argv: Sequence[str]) -> tuple[dict[str, list[str]], Path | None, bool, list[str]]:
    """Fields with their values, --out, --run, and what is left for the study."""
    argv = [part for arg in argv for part in _split(arg)]
    fields, out, run, left = {}, None, False, []
    arguments = iter(argv)
    for arg in arguments:
        if arg == "--scan":
            field, _, values = next(arguments, "").partition("=")
            fields[field.strip().removeprefix("--")] = [v.strip() for v in values.split(",")]
        elif arg == "--out":
            out = Path(next(arguments, ""))
        elif arg == "--run":
            run = True
        else:
            left.append(arg)
    if bad := [f for f, values in fields.items() if not f or "" in values]:
        raise ValueError(f"--scan takes FIELD=VALUE,VALUE,..., got {', '.join(map(repr, bad))}")
    return fields, out, run, left


def _split(arg: str) -> list[str]:
    """--scan=X and --out=X as two arguments."""
    name, equal, value = arg.partition("=")
    return [name, value] if equal and name in ("--scan", "--out") else [arg]


def make_jobs(fields: dict[str, list[str]], folder: Path, options: Sequence[str]) -> list[Job]:
    """A job for every combination of values; one of several numbers has spaces between them.

    Raises:
      ValueError: if two of them would have the same folder.
    """
    jobs = []
    for combination in itertools.product(*fields.values()):
        values = dict(zip(fields, combination, strict=True))
        label = ",".join(f"{field}={value}" for field, value in values.items())
        out = folder / re.sub(r"[^\w.=,+-]", "_", label)
        own = [part for field, value in values.items() for part in (f"--{field}", *value.split())]
        jobs.append(Job(values, out, [*options, *own, "--out", str(out)]))
    if len({job.folder for job in jobs}) < len(jobs):
        raise ValueError(f"--scan has values twice: {fields}; leave one of them out")
    return jobs


def collect(jobs: Sequence[Job], path: Path) -> dict[int, dict[str, float]]:
    """Metrics of the jobs that have finished, by number, and a table of them, a line a job."""
    done = {}
    for number, job in enumerate(jobs):
        if (file := job.folder / "metrics.json").exists():
            done[number] = json.loads(file.read_text())
    names = list(dict.fromkeys(name for metrics in done.values() for name in metrics))
    if done:
        with atomic_path(path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys([*jobs[0].values, *names])))
            writer.writeheader()
            writer.writerows(metrics | jobs[number].values for number, metrics in done.items())
    return done


def _results(jobs: Sequence[Job], done: dict[int, dict[str, float]]) -> str:
    """The table that is printed: a line a metric, a column a job; truths are in the file only."""
    names = dict.fromkeys(name for metrics in done.values() for name in metrics)
    others = {f"{name}{end}" for name in names for end in ("_error", "_truth", "_truth_error")}

    def cell(metrics, name):
        value, error = metrics.get(name), metrics.get(f"{name}_error")
        return value if error is None else Estimate(value, error)

    rows = {n: [cell(metrics, n) for metrics in done.values()] for n in names if n not in others}
    return table([jobs[number].folder.name for number in done], rows)
