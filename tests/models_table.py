#!/usr/bin/env python3
"""Writes docs/models.md from what families_test measured.

  HETERO_MODELS_TABLE=table.json build/release/families_test
  tests/models_table.py table.json > docs/models.md
"""
import json
import sys

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


main()
