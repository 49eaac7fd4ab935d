#!/usr/bin/env python3
"""HeteroInfer beside llama.cpp and OpenVINO GenAI, on the same model files, in turns.

  bench/peers/run.py                                          # installs what is missing (15 minutes), then runs
  bench/peers/run.py --engines hetero,llama --threads 2 --prompt 256 --rounds 3
  bench/peers/run.py --rounds 2                               # the short form: 20 minutes on two cores
  bench/peers/run.py --llama-bench /path/to/llama-bench       # a build that is there already

llama.cpp is built for this machine (-march=native) from the sources in the PyPI package llama-cpp-python and measured by
its own llama-bench. OpenVINO GenAI comes from PyPI, into an environment of its own, and reads the same GGUF files. Each
process is confined to as many cores as it has threads. In each round every engine runs every test once; prompts are drawn
anew each time. The table has medians over rounds, and ratios of the same round: median (lowest to highest).

First every engine reads every model with a tiny prompt; one that cannot is named and left out for it. Tables of what is
there so far are printed after each round, and --json is written then; Ctrl-C ends with the last of them.

MNN is left out: its wheel (3.6.1) has the LLM engine, but nothing that reads or converts GGUF files.
"""
import argparse
import datetime
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys

LLAMA_CPP_PYTHON = 'llama-cpp-python==0.3.36'
GENAI = 'openvino-genai==2026.4.1'
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def say(text):
    print(text, file=sys.stderr, flush=True)


class Failed(Exception):
    pass


def call(*command, **options):
    try:
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    except OSError as error:
        raise Failed(f'{shlex.join(command)}: {error}')
    if done.returncode != 0:
        raise Failed(f'{shlex.join(command)}: exit {done.returncode}:\n{done.stderr[-2000:]}')
    return done.stdout


def numbers_of(command, output):
    """The JSON that an engine printed."""
    try:
        return json.loads(output)
    except ValueError:
        raise Failed(f'{command}: expected JSON, found {output[-200:]!r}')


def environment(folder, *packages):
    """The interpreter of a virtual environment with these packages."""
    python = f'{folder}/bin/python'
    if not os.path.exists(f'{folder}/done'):
        say(f"installing {' '.join(packages)}")
        call(sys.executable, '-m', 'venv', folder)
        call(python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *packages)
        open(f'{folder}/done', 'w').close()
    return python


def build_llama(folder):
    binary = f'{folder}/build/bin/llama-bench'
    if not os.path.exists(binary):
        say(f'building llama.cpp from {LLAMA_CPP_PYTHON} (ten minutes)')
        os.makedirs(folder, exist_ok=True)
        call(sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps',
             '--no-binary', ':all:', '-d', folder, LLAMA_CPP_PYTHON)
        name = next(n for n in os.listdir(folder) if n.endswith('.tar.gz'))
        call('tar', '-xf', f'{folder}/{name}', '-C', folder)
        call('cmake', '-S', f'{folder}/{name[:-7]}/vendor/llama.cpp', '-B', f'{folder}/build',
             '-DCMAKE_BUILD_TYPE=Release', '-DGGML_NATIVE=ON', '-DBUILD_SHARED_LIBS=OFF', '-DLLAMA_CURL=OFF',
             '-DLLAMA_BUILD_TESTS=OFF', '-DLLAMA_BUILD_EXAMPLES=OFF', '-DLLAMA_BUILD_SERVER=OFF')
        call('cmake', '--build', f'{folder}/build', '--target', 'llama-bench', '-j', str(os.cpu_count()))
    return binary


def on_cores(threads):
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, cores)


class Hetero:
    name = 'HeteroInfer'

    def __init__(self, binary, extra):
        self.binary, self.extra = binary, extra

    def start(self, model, threads):
        self.model, self.threads = model, threads

    def measure(self, prompts, decode, depth):
        rows = numbers_of('hetero bench', call(
            self.binary, 'bench', '-m', self.model, '-p', ','.join(map(str, prompts or [0])), '-n', str(decode), '-d',
            str(depth), '-r', '1', '--threads', str(self.threads), '--json', *self.extra,
            preexec_fn=on_cores(self.threads)))
        return {row['test']: row['avg_ts'] for row in rows}

    def stop(self):
        pass


class Llama(Hetero):
    name = 'llama.cpp'

    def measure(self, prompts, decode, depth):
        rows = numbers_of('llama-bench', call(
            self.binary, '-m', self.model, '-p', ','.join(map(str, prompts or [0])), '-n', str(decode), '-d', str(depth),
            '-r', '1', '-t', str(self.threads), '-ngl', '0', '-o', 'json', preexec_fn=on_cores(self.threads)))
        return {test_name(row['n_prompt'], row['n_gen'], row.get('n_depth', 0)): row['avg_ts'] for row in rows}


class GenAi:
    name = 'OpenVINO GenAI'

    def __init__(self, python):
        self.python = python
        self.process = None

    def start(self, model, threads):
        self.process = subprocess.Popen([self.python, f'{HERE}/genai_worker.py', model, str(threads)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=on_cores(threads))
        self.read()
        self.ask(64, 4)  # warm-up

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f'genai_worker.py ended with exit {self.process.wait()}')
        return json.loads(line)

    def ask(self, prompt, decode):
        self.process.stdin.write(json.dumps({'prompt': prompt, 'decode': decode}) + '\n')
        self.process.stdin.flush()
        return self.read()

    def measure(self, prompts, decode, depth):
        speeds = {test_name(n, 0, depth): self.ask(n, 0)['prefill_ts'] for n in prompts}
        speeds[test_name(0, decode, depth)] = self.ask(max(depth, 1), decode)['decode_ts']
        return speeds

    def stop(self):
        if self.process is None:
            return
        try:
            self.process.stdin.close()
            self.process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def test_name(prompt, decode, depth):
    name = f'pp{prompt}' if prompt > 0 else f'tg{decode}'
    return f'{name} @ d{depth}' if depth > 0 else name


def able(model, threads, engines):
    """Those of the engines that can read the model and answer a tiny prompt."""
    able = []
    for engine in engines:
        try:
            engine.start(model, threads)
            try:
                engine.measure([16], 2, 0)
            finally:
                engine.stop()
            able.append(engine)
        except (Failed, OSError) as error:
            say(f'run.py: {engine.name} is left out for {os.path.basename(model)}: {error}')
    return able


def compare(model, threads, engines, args, speeds):
    """Adds to speeds {test: {engine: [speed of each round]}}, and yields after each round. An engine that fails
    meanwhile has no speeds in that round."""
    try:
        for engine in engines:
            engine.start(model, threads)
        for round_number in range(args.rounds):
            for engine in engines:
                say(f'{os.path.basename(model)}, {threads} threads, round {round_number + 1} of {args.rounds}: '
                    f'{engine.name}')
                for depth in args.depth:
                    try:
                        found = engine.measure(args.prompt if depth == 0 else [], args.decode, depth)
                    except (Failed, OSError) as error:
                        say(f'run.py: {engine.name} failed: {error}')
                        found = {}
                    for test, speed in found.items():
                        rounds = speeds.setdefault(test, {}).setdefault(engine.name, {})
                        rounds[round_number] = speed
            yield
    finally:
        for engine in engines:
            engine.stop()


def spread(values):
    return f'{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})'


def print_table(speeds, engines):
    names = [e.name for e in engines]
    others = names[1:]
    print('| ' + ' | '.join(['test'] + [f'{n}, tok/s' for n in names] + [f'over {n}' for n in others]) + ' |')
    print('| --- |' + ' ---: |' * (len(names) + len(others)))
    for test, found in speeds.items():
        cells = [f'{statistics.median(found[n].values()):.1f}' if n in found else '-' for n in names]
        for n in others:
            pairs = [found[names[0]][r] / found[n][r] for r in found.get(n, {}) if r in found.get(names[0], {})]
            cells.append(spread(pairs) if pairs else '-')
        print(f'| {test} | ' + ' | '.join(cells) + ' |')
    sys.stdout.flush()


def processor_name():
    with open('/proc/cpuinfo') as f:
        names = [line.split(':', 1)[1].strip() for line in f if line.startswith('model name')]
    return names[0] if names else 'unknown processor'


def main():
    numbers = lambda text: [int(n) for n in text.split(',')]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--hetero', default=f'{ROOT}/build/release/hetero')
    p.add_argument('--hetero-args', default='', help='more options of hetero bench, for example "--strategy tensor"')
    p.add_argument('--models', nargs='*', help='GGUF files (default: SmolLM2 Q4_1 and a random model of 1B shape)')
    p.add_argument('--engines', default='hetero,llama,genai')
    p.add_argument('--llama-bench', help='a build that is there already')
    p.add_argument('--genai-python', help='an interpreter that has openvino-genai already')
    p.add_argument('--threads', type=numbers, default=[1, 2])
    p.add_argument('--prompt', type=numbers, default=[64, 256, 512])
    p.add_argument('--decode', type=int, default=32)
    p.add_argument('--depth', type=numbers, default=[0, 1024])
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--dir', default=f'{ROOT}/build/peers', help='where peers are installed')
    p.add_argument('--install-only', action='store_true')
    p.add_argument('--json', help='write all samples to this file')
    args = p.parse_args()

    engines = []
    for name in args.engines.split(','):
        if name == 'hetero':
            engines.append(Hetero(args.hetero, shlex.split(args.hetero_args)))
        elif name == 'llama':
            engines.append(Llama(args.llama_bench or build_llama(f'{args.dir}/llama'), []))
        elif name == 'genai':
            engines.append(GenAi(args.genai_python or environment(f'{args.dir}/genai', GENAI)))
        else:
            sys.exit(f'run.py: error: --engines: "{name}" is not one of hetero, llama, genai')
    models = args.models
    if not models:
        smol = f'{ROOT}/models/smollm2-135m-instruct-q4_1.gguf'
        one = f'{args.dir}/random-1b-q4_0.gguf'
        if not os.path.exists(smol):
            sys.exit(f'run.py: error: {smol} is missing (./demo.sh gets it)')
        if not os.path.exists(one):
            python = environment(f'{args.dir}/tools', 'gguf==0.19.0', 'numpy')
            say('writing a random model of the 1B shape')
            call(python, f'{HERE}/random_model.py', '--tokenizer-from', smol, '--out', one)
        models = [smol, one]
    if args.install_only:
        return
    print(f'{processor_name()}, {len(os.sched_getaffinity(0))} cores, {datetime.date.today()}, {args.rounds} rounds; '
          f'{LLAMA_CPP_PYTHON}, {GENAI}; command: {shlex.join(sys.argv)}')
    everything = []
    try:
        for model in models:
            ready = able(model, args.threads[0], engines)
            if not ready:
                continue
            for threads in args.threads:
                speeds = {}
                everything.append({'model': os.path.basename(model), 'threads': threads, 'speeds': speeds})
                rounds = 0
                for _ in compare(model, threads, ready, args, speeds):
                    rounds += 1
                    print(f"\n{os.path.basename(model)}, {threads} thread{'s' if threads > 1 else ''}, "
                          f"{rounds} of {args.rounds} rounds:\n")
                    print_table(speeds, ready)
                    write_json(args.json, everything)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        write_json(args.json, everything)
        say('run.py: stopped; the tables above are what there is')
        sys.exit(130)


def write_json(path, everything):
    if path:
        with open(f'{path}.new', 'w') as f:
            json.dump(everything, f, indent=1)
        os.replace(f'{path}.new', path)


try:
    main()
except Failed as error:
    sys.exit(f'run.py: error: {error}')
