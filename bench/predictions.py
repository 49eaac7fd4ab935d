#!/usr/bin/env python3
"""Predicted against measured prefill time of plans, over lengths that the profile has not measured.

  hetero profile -m M --strategy tensor
  bench/predictions.py --hetero build/release/hetero -m M

Each length is measured twice: as the first pass of a process, when drivers and memory are cold (a process for each
length, -r times), and in repeated passes (one call of `hetero bench`, -r 5 rounds). Medians count. The prediction is
the plan's, made before anything of that length ran (field coexecution.predicted_ms of `hetero run --json`).
"""
import argparse
import json
import statistics
import subprocess
import sys

LENGTHS = [16, 48, 100, 135, 200, 256, 300, 333, 400, 450, 500, 512]


def hetero(args, command, *more):
    command = [args.hetero, command, "-m", args.model, "--strategy", args.strategy, *more, "--json"] + args.option
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:8])} ...: {done.stderr.strip()}")
    return json.loads(done.stdout)


def first_pass(args, tokens):
    return hetero(args, "run", "--raw", "-p", " a" * tokens, "-n", "1", "--ignore-eos", "--temp", "0", "--compile",
                  "ahead")


def repeated_passes(args, lengths):
    """Milliseconds, by length."""
    print("repeated passes", file=sys.stderr, flush=True)
    rows = hetero(args, "bench", "-p", ",".join(map(str, lengths)), "-n", "0", "-r", "5")
    return {n: 1000 * n / row["median_ts"] for row in rows for n in lengths if row["test"] == f"pp{n}"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hetero", default="build/release/hetero")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--strategy", default="tensor")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("--option", action="append", default=[], help="passed on to hetero run and hetero bench")
    args = parser.parse_args()
    lengths = [int(n) for n in args.lengths.split(",")]
    first = {n: [] for n in lengths}
    repeated = {}
    try:
        for round_ in range(args.runs):  # interleaved, so that a slow minute does not hit one length only
            for n in lengths:
                print(f"round {round_ + 1} of {args.runs}: {n} tokens", file=sys.stderr, flush=True)
                first[n].append(first_pass(args, n))
        repeated = repeated_passes(args, lengths)
    except KeyboardInterrupt:
        print("stopped: the table has what was measured so far", file=sys.stderr)
    errors = {"first pass": [], "repeated": []}
    print("| tokens | predicted, ms | first pass of a process | error | repeated | error |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for n in lengths:
        if not first[n]:
            continue
        if any(r["coexecution"]["predicted_ms"] is None for r in first[n]):
            sys.exit("no prediction: is there a profile? (hetero profile with the same options)")
        predicted = statistics.median(r["coexecution"]["predicted_ms"] for r in first[n])
        cells = [f"{first[n][0]['prompt_tokens']}", f"{predicted:.1f}"]
        measured = {"first pass": statistics.median(r["coexecution"]["measured_ms"] for r in first[n]),
                    "repeated": repeated.get(n)}
        for kind, ms in measured.items():
            if ms is None:
                cells += ["", ""]
                continue
            error = predicted / ms - 1
            errors[kind].append(abs(error))
            cells += [f"{ms:.1f}", f"{100 * error:+.1f}%"]
        print(f"| {' | '.join(cells)} |")
    print()
    for kind, of_kind in errors.items():
        if of_kind:
            print(f"median of the absolute errors, {kind}: {100 * statistics.median(of_kind):.1f}%")


if __name__ == "__main__":
    main()
