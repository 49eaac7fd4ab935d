#!/usr/bin/env python3
"""Predicted against measured prefill time of plans, over lengths that the profile has not measured.

  hetero profile -m M --strategy tensor
  bench/predictions.py --hetero build/release/hetero -m M

Every length runs in a process of its own, -r times; the median counts. The prediction is the plan's,
made before anything of that length ran (field coexecution.predicted_ms of `hetero run --json`).
"""
import argparse
import json
import statistics
import subprocess
import sys

LENGTHS = [16, 48, 100, 135, 200, 256, 300, 333, 400, 450, 500, 512]


def run(args, strategy, tokens):
    command = [args.hetero, "run", "-m", args.model, "--strategy", strategy, "--raw", "-p", " a" * tokens,
               "-n", "1", "--ignore-eos", "--temp", "0", "--compile", "ahead", "--json"] + args.option
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:8])} ...: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hetero", default="build/release/hetero")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--strategy", default="tensor")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("-r", "--runs", type=int, default=3)
    parser.add_argument("--option", action="append", default=[], help="passed on to hetero run")
    args = parser.parse_args()
    lengths = [int(n) for n in args.lengths.split(",")]
    results = {n: [] for n in lengths}
    try:
        for round_ in range(args.runs):  # interleaved, so that a slow minute does not hit one length only
            for n in lengths:
                print(f"round {round_ + 1} of {args.runs}: {n} tokens", file=sys.stderr, flush=True)
                results[n].append(run(args, args.strategy, n))
    except KeyboardInterrupt:
        print("stopped: the table has what was measured so far", file=sys.stderr)
    lengths = [n for n in lengths if results[n]]
    errors = []
    print(f"{'tokens':>7} {'predicted ms':>13} {'measured ms':>12} {'error':>7}")
    for n in lengths:
        rows = results[n]
        if any(r["coexecution"]["predicted_ms"] is None for r in rows):
            sys.exit("no prediction: is there a profile? (hetero profile with the same options)")
        predicted = statistics.median(r["coexecution"]["predicted_ms"] for r in rows)
        measured = statistics.median(r["coexecution"]["measured_ms"] for r in rows)
        error = predicted / measured - 1
        errors.append(abs(error))
        print(f"{rows[0]['prompt_tokens']:>7} {predicted:>13.2f} {measured:>12.2f} {100 * error:>+6.1f}%")
    if errors:
        print(f"median of the absolute errors: {100 * statistics.median(errors):.1f}%")


if __name__ == "__main__":
    main()
