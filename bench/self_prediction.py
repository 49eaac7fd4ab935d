#!/usr/bin/env python3
"""Does the simulator predict this machine from its own characterization? A table in Markdown.

  bench/self_prediction.py -m models/smollm2-135m-instruct-q4_1.gguf

Characterizes the stand-ins gpu0 and npu0, each on its part of the cores, writes a chip's file, simulates the model on
that chip, and measures the same with hetero bench: gpu alone on one core; npu-padding (the rest on the GPU), layer and
tensor on two. Graphs are compiled ahead, and tensor is planned by the characterization's own profile. The first sample
after compiling is slow (pages are touched for the first time), hence medians of five.
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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-m', '--model', required=True)
    p.add_argument('--hetero', default=f'{ROOT}/build/release/hetero')
    p.add_argument('--soc', help='a chip file that is there already, with --report')
    p.add_argument('--report', help='what hetero characterize --json printed when it wrote the chip file')
    p.add_argument('--prompt', default='64,256,525')
    p.add_argument('--repetitions', default='5')
    p.add_argument('--strategies', default='gpu,npu-padding,layer,tensor')
    a = p.parse_args()

    def hetero(*args):
        done = subprocess.run([a.hetero, *args], stdout=subprocess.PIPE)
        if done.returncode != 0:
            sys.exit(f'self_prediction.py: error: {shlex.join(args)}: exit {done.returncode}')
        return json.loads(done.stdout)

    soc = a.soc or f'{ROOT}/build/this-machine.json'
    if a.soc:
        with open(a.report, encoding='utf-8') as f:
            report = json.load(f)
    else:
        report = hetero('characterize', '--processors', 'gpu0,npu0', '-m', a.model, '--as-soc', soc, '--json')
    if not report['complete']:
        print('self_prediction.py: not everything was measured in time (hetero characterize --time)', file=sys.stderr)
    profile = f'{ROOT}/build/this-machine-profile.json'
    with open(profile, 'w', encoding='utf-8') as f:
        json.dump(report['profile'], f)
    print(f"{os.path.basename(a.model)}, {datetime.date.today()}: `{shlex.join(sys.argv)}`\n")
    print('| strategy | tokens | measured, tok/s | simulated, tok/s | simulated / measured |')
    print('| --- | ---: | ---: | ---: | ---: |')
    errors = []
    for strategy in a.strategies.split(','):
        alone = strategy == 'gpu'
        rows = hetero('bench', '-m', a.model, '-p', a.prompt, '-n', '0', '-r', a.repetitions, '--strategy', strategy,
                      '--processors', 'gpu0' if alone else 'gpu0,npu0', '--threads', '1' if alone else '2', '--json',
                      '--compile', 'ahead', *(['--profile', profile] if strategy == 'tensor' else []))
        for row in rows:
            tokens = row['prompt_tokens']
            simulated = hetero('simulate', '--soc', soc, '-m', a.model, '--prompt', str(tokens), '--decode', '1',
                               '--strategy', strategy, '--json')['prefill_tps']
            ratio = simulated / row['median_ts']
            errors.append(abs(ratio - 1))
            print(f"| {strategy} | {tokens} | {row['median_ts']:.1f} | {simulated:.1f} | {ratio:.2f} |", flush=True)
    print(f'\nMedian error {100 * statistics.median(errors):.0f}%, largest {100 * max(errors):.0f}%.')


main()
