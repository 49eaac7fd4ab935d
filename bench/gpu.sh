#!/usr/bin/env bash
# What a GPU reaches, in one text: speed of a whole model, which variants of kernels were tried and how fast
# each was, where a decoded token's time goes, and speed of single operators.
#
#   bench/gpu.sh BUILD [MODEL]
#
# BUILD: a build folder with hetero, and processors_bench if there is to be a last part (-DHETERO_BENCH=ON).
# MODEL: a GGUF file; without one, a Llama-3-8B shape in Q4_0 with random weights is written (4.1 GB) to
# $TMPDIR. GPU=gpu0 names the processor. Builds nothing, and takes a few minutes.
set -u
build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
gpu=${GPU:-gpu0}
tmp=${TMPDIR:-/tmp}/hetero-gpu-bench
mkdir -p "$tmp"
export XDG_CACHE_HOME=$tmp/cache  # of its own, so that kernels are tried in this run
rm -rf "$XDG_CACHE_HOME"
model=${2:-}
if [ -z "$model" ]; then
  model=$tmp/llama-3-8b-q4_0.gguf
  [ -s "$model" ] || python3 "$here/random_model.py" "${SHAPE:-llama-3-8b}" "$model" || exit 1
fi

step() { printf '\n== %s (after %s s)\n' "$*" "$SECONDS"; }

run() { # PROMPT_TOKENS NEW_TOKENS [ARGS...]; a byte is a token in random_model.py's vocabulary
  local p=$1 n=$2
  shift 2
  if ! timeout 200 "$build/hetero" run -m "$model" --processors "$gpu" --strategy gpu --raw --ignore-eos --temp 0 \
    -n "$n" -p "$(printf 'a%.0s' $(seq "$p"))" --json "$@" > "$tmp/run.json" 2> "$tmp/run.err"; then
    head -c 2000 "$tmp/run.err"
    return 1
  fi
  python3 - "$tmp/run.json" << 'PY'
import json, sys
r = json.load(open(sys.argv[1]))
print('  prompt %5d: %8.1f tokens/s, first token after %8.1f ms; decode %7.1f tokens/s' %
      (r['prompt_tokens'], r['prefill_tps'], r['ttft_ms'], r['decode_tps']))
PY
}

step devices
"$build/hetero" devices

step "whole model; the first run builds and tries kernels"
time run 512 4
for _ in 1 2; do
  run 4 128
  run 512 64
done
run 2000 64
run 4000 64

ids() {
  run 4 48 > /dev/null && python3 -c "import json; print(json.load(open('$tmp/run.json'))['ids'])"
}
step "the same tokens, with kernels joined and each by itself"
a=$(ids)
b=$(HETERO_OPENCL_INTERVALS=each HETERO_OPENCL_MATRICES=off ids)
[ -n "$a" ] && [ "$a" = "$b" ] && echo "  same" || printf '  different:\n  %s\n  %s\n' "$a" "$b"

step "decoding, by what is joined (HETERO_OPENCL_JOIN)"
for join in none gated all layers; do
  echo "  $join"
  HETERO_OPENCL_JOIN=$join run 4 128
done

step "without units for matrices"
HETERO_OPENCL_MATRICES=off run 512 4
HETERO_OPENCL_MATRICES=off run 512 4

step "variants tried: chosen, then all with their times"
cat "$XDG_CACHE_HOME"/heteroinfer/opencl-tuned-*.txt | sed 's/\t/\n    /g; s/us /us\n     /g'

step "operators of one pass, in microseconds; each kernel has its own event, which costs time between them"
for p in 4 512 4000; do
  HETERO_OPENCL_INTERVALS=each run "$p" 8 --trace "$tmp/trace.json" && python3 - "$tmp/trace.json" << 'PY'
import json, re, sys
names = {}
for e in json.load(open(sys.argv[1]))['traceEvents']:
    if e['ph'] == 'X':
        key = ('prefill' if e['args']['tokens'] > 1 else 'decode', re.sub(r'blk\.\d+\.', '', e['name']))
        names.setdefault(key, []).append(e['dur'])
for (phase, name), durations in names.items():
    durations.sort()
    print('    %-8s %-24s %6d x median %9.1f' % (phase, name, len(durations), durations[len(durations) // 2]))
PY
done

if [ -x "$build/bench/processors_bench" ]; then
  step "single operators"
  timeout 150 "$build/bench/processors_bench" --processor="$gpu" --benchmark_min_time=0.05 \
    --benchmark_filter='llama8b.*(Q4_0|Q4_K|Q8_0|F16)/m=(1|4|32|64|512)/' 2>&1 | grep -E '^linear' | cut -c1-150
fi
step done
