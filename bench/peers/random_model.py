#!/usr/bin/env python3
"""Writes a GGUF model of the Llama architecture with random weights, for speed only.

  random_model.py --tokenizer-from models/smollm2-135m-instruct-q4_1.gguf --out 1b.gguf      # Llama 3.2 1B's shape

Matrices are Q4_0, the embedding is Q8_0 and also the output head. Blocks are drawn directly: uniform quants, and scales
that keep activations finite. The same seed gives the same file. Needs the packages gguf and numpy.
"""
import argparse
import os

import gguf
import numpy as np

COPIED = ['tokenizer.ggml.model', 'tokenizer.ggml.pre', 'tokenizer.ggml.tokens', 'tokenizer.ggml.token_type',
          'tokenizer.ggml.merges', 'tokenizer.ggml.bos_token_id', 'tokenizer.ggml.eos_token_id',
          'tokenizer.ggml.add_bos_token', 'tokenizer.ggml.add_space_prefix', 'tokenizer.chat_template']


def blocks(random, rows, cols, kind, deviation):
    """Blocks of 32 weights: a half-float scale, then quants."""
    count = rows * cols // 32
    if kind == gguf.GGMLQuantizationType.Q4_0:
        quants, step = random.integers(0, 256, (count, 16), np.uint8), 4.61  # step: the deviation of uniform quants
    else:
        quants, step = random.integers(-127, 128, (count, 32), np.int8).view(np.uint8), 73.3
    sign = random.choice([-1.0, 1.0], count)  # 4-bit quants go from -8 to 7: signs keep the mean at zero
    scale = (deviation / step * random.uniform(0.8, 1.2, count) * sign).astype('<f2')
    return np.concatenate([scale.view(np.uint8).reshape(count, 2), quants], axis=1).reshape(rows, -1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--tokenizer-from', required=True, help='a GGUF file whose tokenizer is copied')
    p.add_argument('--out', required=True)
    p.add_argument('--width', type=int, default=2048)
    p.add_argument('--layers', type=int, default=16)
    p.add_argument('--heads', type=int, default=32)
    p.add_argument('--kv-heads', type=int, default=8)
    p.add_argument('--ffn', type=int, default=8192)
    p.add_argument('--context', type=int, default=8192)
    p.add_argument('--seed', type=int, default=1)
    a = p.parse_args()
    q4, q8 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
    source = gguf.GGUFReader(a.tokenizer_from)
    random = np.random.default_rng(a.seed)
    deviation = 0.5 / a.width ** 0.5
    kv_width = a.width // a.heads * a.kv_heads

    w = gguf.GGUFWriter(a.out + '.part', 'llama')
    w.add_name(f'random-{a.width}x{a.layers}')
    w.add_block_count(a.layers)
    w.add_context_length(a.context)
    w.add_embedding_length(a.width)
    w.add_feed_forward_length(a.ffn)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_rope_freq_base(500000.0)
    w.add_rope_dimension_count(a.width // a.heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_quantization_version(2)
    w.add_file_type(2)
    for key in COPIED:
        if key in source.fields:
            field = source.fields[key]
            w.add_key_value(key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    vocabulary = len(source.fields['tokenizer.ggml.tokens'].contents())
    w.add_vocab_size(vocabulary)

    def matrix(name, rows, cols, kind=q4):
        w.add_tensor(name, blocks(random, rows, cols, kind, deviation), raw_dtype=kind)

    def ones(name):
        w.add_tensor(name, np.ones(a.width, np.float32))

    matrix('token_embd.weight', vocabulary, a.width, q8)
    ones('output_norm.weight')
    for i in range(a.layers):
        ones(f'blk.{i}.attn_norm.weight')
        matrix(f'blk.{i}.attn_q.weight', a.width, a.width)
        matrix(f'blk.{i}.attn_k.weight', kv_width, a.width)
        matrix(f'blk.{i}.attn_v.weight', kv_width, a.width)
        matrix(f'blk.{i}.attn_output.weight', a.width, a.width)
        ones(f'blk.{i}.ffn_norm.weight')
        matrix(f'blk.{i}.ffn_gate.weight', a.ffn, a.width)
        matrix(f'blk.{i}.ffn_up.weight', a.ffn, a.width)
        matrix(f'blk.{i}.ffn_down.weight', a.width, a.ffn)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.rename(a.out + '.part', a.out)  # never half a model under its final name


main()
