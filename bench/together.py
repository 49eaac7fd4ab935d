#!/usr/bin/env python3
"""What GPU and NPU gain by working together, by length of the prompt: a table in Markdown.

  bench/together.py -m models/smollm2-135m-instruct-q4_1.gguf
  bench/together.py -m 1b.gguf --prompt 64,256 --repetitions 2 --strategies tensor,layer

Meant for stand-ins, which play a GPU and an NPU on a core each: alone, each has one core (gpu and npu-padding with
--threads 1; npu-padding has the CPU on it as well, for all but products); together they have two, and tensor too has
the CPU on the NPU's core. "of the sum" is the speed together over the sum of both alone, "gain" the speed together over
the faster one alone; "weights" is the memory that holds weights, "process" all that the process takes, drivers and
compilers included. Plans of tensor go by a profile that is measured first. All runs take turns (hetero bench); numbers
are medians. "by round" is the median of the rounds' ratios of the sum, each from runs seconds apart, and in brackets their
quartiles. "two cores" says what the machine itself gave meanwhile: the GPU's speed on two cores over twice that on one. On a
virtual machine whose host is busy it falls to 0.5, and then no two processors can gain anything. The last columns are not
the same comparison: each single processor with both cores, as a machine without the other one would use them.
"""
import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SINGLES = ['gpu', 'npu-padding']


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-m', '--model', required=True)
    p.add_argument('--hetero', default=f'{ROOT}/build/release/hetero')
    p.add_argument('--prompt', default='32,64,128,256,512,1024')
    p.add_argument('--repetitions', default='5')
    p.add_argument('--strategies', default='tensor', help='of working together')
    p.add_argument('--json', help='write what hetero bench printed to this file')
    a = p.parse_args()
    together = a.strategies.split(',')

    # The solver plans by a profile, where there is one for these processors.
    subprocess.run([a.hetero, 'profile', '-m', a.model, '--strategy', 'tensor', '--threads', '2',
                    '--time', '120'],
                   stdout=subprocess.DEVNULL)
    # One call, so that all take turns.
    command = [a.hetero, 'bench', '-m', a.model, '-p', a.prompt, '-n', '0', '-r', a.repetitions, '--strategy',
               ','.join(SINGLES + together), '--threads', '1,2', '--json']
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit(f'together.py: error: {shlex.join(command)}: exit {done.returncode}')
    rows = json.loads(done.stdout)
    if a.json:
        with open(a.json, 'w') as f:
            json.dump(rows, f, indent=1)
    found = {(r['test'], r['strategy'], r['threads']): r for r in rows}
    print(f"{os.path.basename(a.model)}, {datetime.date.today()}: `{shlex.join(sys.argv)}`\n")
    print('| tokens | gpu, 1 core | npu, 1 core | sum | together | tok/s | of the sum | by round | two cores | gain | '
          'weights / file | process / file | gpu, 2 cores | npu, 2 cores |')
    print('| ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |')
    for prompt in a.prompt.split(','):
        test = f'pp{prompt}'
        alone = [found[test, s, 1]['median_ts'] for s in SINGLES]
        rounds = list(zip(*(found[test, s, 1]['samples_ts'] for s in SINGLES)))
        given = statistics.median(two / (2 * one) for two, one in zip(
            found[test, SINGLES[0], 2]['samples_ts'], found[test, SINGLES[0], 1]['samples_ts']))
        wide = [found[test, s, 2]['median_ts'] for s in SINGLES]
        for strategy in together:
            row = found[test, strategy, 2]
            speed, file = row['median_ts'], row['file_bytes']
            ratios = sorted(both / sum(one) for both, one in zip(row['samples_ts'], rounds))
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            print(f"| {prompt} | {alone[0]:.1f} | {alone[1]:.1f} | {sum(alone):.1f} | {strategy} | {speed:.1f} | "
                  f"{speed / sum(alone):.2f} | {middle:.2f} ({low:.2f}, {high:.2f}) | {given:.2f} | "
                  f"{speed / max(alone):.2f} | {row['weight_bytes'] / file:.2f} | "
                  f"{row['resident_bytes'] / file:.2f} | {wide[0]:.1f} | {wide[1]:.1f} |")


main()
