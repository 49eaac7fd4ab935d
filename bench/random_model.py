#!/usr/bin/env python3
"""Writes a GGUF file of the Llama architecture with random weights in Q4_0, to measure speed with where no
real model can be had. Needs nothing but Python. Its tokenizer makes one token of each byte.

  bench/random_model.py llama-3-8b OUT.gguf
"""
import random
import struct
import sys

# layers, width, ffn, heads, kv heads, vocabulary
SHAPES = {
    'llama-3-8b': (32, 4096, 14336, 32, 8, 49152),
    'llama-3.2-1b': (16, 2048, 8192, 32, 8, 49152),
    'tiny': (2, 256, 512, 4, 2, 512),
}
F32, Q4_0 = 0, 2  # of GGUF's tensors
U32, F32_KEY, STRING, ARRAY = 4, 6, 8, 9  # of its keys
ALIGNMENT = 32


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack('<Q', len(s)) + s


def byte_tokens():
    """The characters that stand for bytes in vocabularies of the kind of GPT-2."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    extra = iter(range(256, 512))
    return [chr(b if b in plain else next(extra)) for b in range(256)]


def main():
    layers, width, ffn, heads, kv_heads, vocabulary = SHAPES[sys.argv[1]]
    kv = width // heads * kv_heads
    keys = []

    def key(name, kind, value):
        keys.append(text(name) + struct.pack('<I', kind) + value)

    def number(name, value):
        key('llama.' + name, U32, struct.pack('<I', value))

    def strings(name, values):
        key(name, ARRAY, struct.pack('<IQ', STRING, len(values)) + b''.join(text(v) for v in values))

    key('general.architecture', STRING, text('llama'))
    key('general.name', STRING, text('random ' + sys.argv[1]))
    number('block_count', layers)
    number('embedding_length', width)
    number('feed_forward_length', ffn)
    number('attention.head_count', heads)
    number('attention.head_count_kv', kv_heads)
    number('rope.dimension_count', width // heads)
    number('context_length', 8192)
    key('llama.attention.layer_norm_rms_epsilon', F32_KEY, struct.pack('<f', 1e-5))
    key('llama.rope.freq_base', F32_KEY, struct.pack('<f', 500000.0))
    tokens = byte_tokens() + [f'<filler {i}>' for i in range(256, vocabulary)]
    key('tokenizer.ggml.model', STRING, text('gpt2'))
    key('tokenizer.ggml.pre', STRING, text('smollm'))
    strings('tokenizer.ggml.tokens', tokens)
    key('tokenizer.ggml.token_type', ARRAY,
        struct.pack('<IQ', 5, vocabulary) + struct.pack(f'<{vocabulary}i', *[1 if i < 256 else 3 for i in range(vocabulary)]))
    strings('tokenizer.ggml.merges', [])
    key('tokenizer.ggml.bos_token_id', U32, struct.pack('<I', vocabulary - 2))
    key('tokenizer.ggml.eos_token_id', U32, struct.pack('<I', vocabulary - 1))

    tensors = [('token_embd.weight', Q4_0, vocabulary, width), ('output_norm.weight', F32, 1, width)]
    for i in range(layers):
        tensors += [(f'blk.{i}.{name}.weight', kind, rows, cols) for name, kind, rows, cols in [
            ('attn_norm', F32, 1, width), ('attn_q', Q4_0, width, width), ('attn_k', Q4_0, kv, width),
            ('attn_v', Q4_0, kv, width), ('attn_output', Q4_0, width, width), ('ffn_norm', F32, 1, width),
            ('ffn_gate', Q4_0, ffn, width), ('ffn_up', Q4_0, ffn, width), ('ffn_down', Q4_0, width, ffn)]]

    def size(kind, rows, cols):
        return rows * cols * 4 if kind == F32 else rows * cols // 32 * 18

    def padded(n):
        return (n + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

    infos, offset = [], 0
    for name, kind, rows, cols in tensors:
        dims = [cols] if rows == 1 else [cols, rows]
        infos.append(text(name) + struct.pack('<I', len(dims)) + struct.pack(f'<{len(dims)}Q', *dims) +
                     struct.pack('<IQ', kind, offset))
        offset += padded(size(kind, rows, cols))
    header = struct.pack('<4sIQQ', b'GGUF', 3, len(tensors), len(keys)) + b''.join(keys) + b''.join(infos)
    draw = random.Random(7)
    # Quants are spread evenly over -8 .. 7, a deviation of 4.6; scales give weights of 0.5 / sqrt(width),
    # with random signs, so that their mean is zero.
    scale = 0.5 / width ** 0.5 / 4.6
    chunk = b''.join(struct.pack('<e', scale * draw.choice((-1, 1)) * draw.uniform(0.8, 1.2)) + draw.randbytes(16)
                     for _ in range(1 << 16))
    with open(sys.argv[2], 'wb') as out:
        out.write(header.ljust(padded(len(header)), b'\0'))
        for name, kind, rows, cols in tensors:
            left = size(kind, rows, cols)
            end = padded(left) - left
            if kind == F32:
                out.write(struct.pack(f'<{cols}f', *[1.0] * cols))
                left = 0
            while left > 0:
                first = draw.randrange(len(chunk) // 18) * 18
                piece = chunk[first:first + left]
                out.write(piece)
                left -= len(piece)
            out.write(b'\0' * end)


main()
