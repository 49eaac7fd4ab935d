#!/usr/bin/env python3
"""Random models of every family against numpy in float64, written from the models' papers and configs, apart from
src/graph. Run by hand (needs the packages numpy and gguf), since the tests compare with src/graph/reference.cc:

  tests/numpy_reference.py build/release/hetero [STRATEGY ...]

Prints the largest difference of any log-probability for each variant; exits with 1 where one is over 1e-3.
"""
import json
import math
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np

TOKENS = 40
VOCABULARY = 61
EPS = 1e-5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def rotations(kind, dims, base, p):
    """Inverse frequencies of the pairs, and what sines and cosines are scaled by."""
    plain = base**(-np.arange(0, dims, 2) / dims)
    if kind == 'linear':
        return plain / p['factor'], 1.0
    if kind == 'yarn':  # Peng et al., arXiv 2309.00071, with beta 32 and 1
        def dim(turns):
            return dims * math.log(p['original'] / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(dim(32)), 0), min(math.ceil(dim(1)), dims - 1)
        ramp = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
        return plain * (ramp / p['factor'] + 1 - ramp), 0.1 * math.log(p['factor']) + 1
    if kind == 'longrope':
        return plain / np.array(p['long' if p['use_long'] else 'short']), p['attention']
    if kind == 'factors':
        return plain / np.array(p['factors']), 1.0
    return plain, 1.0


def rotate(x, inverse, magnitude, adjacent):
    angles = np.outer(np.arange(len(x)), inverse)[:, None, :]
    cos, sin = np.cos(angles) * magnitude, np.sin(angles) * magnitude
    dims, y = 2 * len(inverse), x.copy()
    first = np.arange(0, dims, 2) if adjacent else np.arange(dims // 2)
    second = first + (1 if adjacent else dims // 2)
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


class Model:
    def __init__(self, arch, heads=4, kv=2, dim=16, width=64, ffn=96, layers=2, tied=False, bias=False, rope=None,
                 rotary=None, base=10000.0, experts=0, used=0, window=0, context=0, score_cap=0.0, logit_cap=0.0):
        self.__dict__.update(locals())
        self.gemma, self.fused = arch.startswith('gemma'), arch == 'phi3'
        self.post_norms, self.head_norms = arch in ('gemma2', 'gemma3'), arch in ('gemma3', 'qwen3', 'qwen3moe')
        self.rotary = rotary or dim
        self.tensors = {}
        self.random = np.random.default_rng(7)
        self.make_tensors()

    def add(self, name, *shape, scale=1.0, mean=0.0):
        self.tensors[name] = (mean + scale * self.random.standard_normal(shape)).astype(np.float32)

    def linear(self, name, rows, cols):
        self.add(name + '.weight', rows, cols, scale=cols**-0.5)
        if self.bias:
            self.add(name + '.bias', rows, scale=0.5)

    def make_tensors(self):
        q, kv, w, f = self.heads * self.dim, self.kv * self.dim, self.width, self.ffn
        self.add('token_embd.weight', VOCABULARY, w, scale=0.3 if self.gemma else 1)
        self.add('output_norm.weight', w, scale=0.2, mean=0.5)
        if not self.tied and not self.gemma:
            self.add('output.weight', VOCABULARY, w, scale=w**-0.5)
        for b in (f'blk.{i}.' for i in range(self.layers)):
            norms = ['attn_norm', 'ffn_norm'] + ['post_attention_norm', 'post_ffw_norm'] * self.post_norms
            for name in norms:
                self.add(f'{b}{name}.weight', w, scale=0.3, mean=1)
            if self.head_norms:
                self.add(b + 'attn_q_norm.weight', self.dim, scale=0.3, mean=1)
                self.add(b + 'attn_k_norm.weight', self.dim, scale=0.3, mean=1)
            if self.fused:
                self.linear(b + 'attn_qkv', q + 2 * kv, w)
            else:
                self.linear(b + 'attn_q', q, w)
                self.linear(b + 'attn_k', kv, w)
                self.linear(b + 'attn_v', kv, w)
            self.linear(b + 'attn_output', w, q)
            if self.experts:
                self.add(b + 'ffn_gate_inp.weight', self.experts, w)
                self.add(b + 'ffn_gate_exps.weight', self.experts, f, w, scale=w**-0.5)
                self.add(b + 'ffn_up_exps.weight', self.experts, f, w, scale=w**-0.5)
                self.add(b + 'ffn_down_exps.weight', self.experts, w, f, scale=f**-0.5)
                if self.arch == 'qwen2moe':
                    self.add(b + 'ffn_gate_inp_shexp.weight', w)
                    self.add(b + 'ffn_gate_shexp.weight', f, w, scale=w**-0.5)
                    self.add(b + 'ffn_up_shexp.weight', f, w, scale=w**-0.5)
                    self.add(b + 'ffn_down_shexp.weight', w, f, scale=f**-0.5)
            elif self.fused:
                self.linear(b + 'ffn_up', 2 * f, w)
                self.linear(b + 'ffn_down', w, f)
            else:
                self.linear(b + 'ffn_gate', f, w)
                self.linear(b + 'ffn_up', f, w)
                self.linear(b + 'ffn_down', w, f)
        kind, p = self.rope or (None, {})
        if kind == 'longrope':
            self.tensors['rope_factors_long.weight'] = np.array(p['long'], np.float32)
            self.tensors['rope_factors_short.weight'] = np.array(p['short'], np.float32)
        if kind == 'factors':
            self.tensors['rope_freqs.weight'] = np.array(p['factors'], np.float32)

    def write(self, path):
        w = gguf.GGUFWriter(path, self.arch)
        kind, p = self.rope or (None, {})
        numbers = {'block_count': self.layers, 'embedding_length': self.width, 'feed_forward_length': self.ffn,
                   'context_length': 256, 'attention.head_count': self.heads, 'attention.head_count_kv': self.kv,
                   'attention.key_length': self.dim, 'attention.value_length': self.dim,
                   'rope.dimension_count': self.rotary, 'attention.sliding_window': self.window,
                   'expert_count': self.experts, 'expert_used_count': self.used,
                   'expert_feed_forward_length': self.ffn if self.experts else 0,
                   'expert_shared_feed_forward_length': self.ffn if self.arch == 'qwen2moe' else 0,
                   'rope.scaling.original_context_length': p.get('original', 0)}
        reals = {'attention.layer_norm_rms_epsilon': EPS, 'rope.freq_base': self.base,
                 'rope.scaling.factor': p.get('factor', 0), 'rope.scaling.attn_factor': p.get('attention', 0),
                 'attn_logit_softcapping': self.score_cap, 'final_logit_softcapping': self.logit_cap}
        for key, value in numbers.items():
            if value:
                w.add_uint32(f'{self.arch}.{key}', value)
        for key, value in reals.items():
            if value:
                w.add_float32(f'{self.arch}.{key}', value)
        if kind in ('linear', 'yarn'):
            w.add_string(f'{self.arch}.rope.scaling.type', kind)
        w.add_tokenizer_model('llama')
        w.add_token_list([b'<unk>', b'<s>', b'</s>'] + [f't{i}'.encode() for i in range(3, VOCABULARY)])
        w.add_token_scores([0.0] * VOCABULARY)
        w.add_token_types([2, 3, 3] + [1] * (VOCABULARY - 3))
        for name, value in self.tensors.items():
            w.add_tensor(name, value)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()

    def apply(self, name, x):
        y = x @ self.tensors[name + '.weight'].astype(np.float64).T
        return y + self.tensors[name + '.bias'] if name + '.bias' in self.tensors else y

    def attention(self, b, h, local):
        n, heads, kv, dim = TOKENS, self.heads, self.kv, self.dim
        if self.fused:
            q, k, v = np.split(self.apply(b + 'attn_qkv', h), [heads * dim, (heads + kv) * dim], -1)
        else:
            q, k, v = (self.apply(b + name, h) for name in ('attn_q', 'attn_k', 'attn_v'))
        q, k, v = q.reshape(n, heads, dim), k.reshape(n, kv, dim), v.reshape(n, kv, dim)
        if self.head_norms:
            q = rms_norm(q, self.tensors[b + 'attn_q_norm.weight'])
            k = rms_norm(k, self.tensors[b + 'attn_k_norm.weight'])
        kind, p = self.rope or (None, {})
        plain = self.arch == 'gemma3' and local
        turns = rotations(None, self.rotary, 10000.0, p) if plain else rotations(kind, self.rotary, self.base, p)
        adjacent = self.arch in ('llama', 'internlm2')
        q, k = rotate(q, *turns, adjacent), rotate(k, *turns, adjacent)
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        scores = np.einsum('qhd,khd->hqk', q, k) / math.sqrt(dim)
        if self.score_cap:
            scores = self.score_cap * np.tanh(scores / self.score_cap)
        distance = np.arange(n)[:, None] - np.arange(n)[None, :]
        seen = (distance >= 0) & (distance < (self.window if local else n))
        return np.einsum('hqk,khd->qhd', softmax(np.where(seen, scores, -np.inf)), v).reshape(n, -1)

    def expert_mix(self, b, h):
        t = {k: v.astype(np.float64) for k, v in self.tensors.items() if k.startswith(b)}
        shares = softmax(h @ t[b + 'ffn_gate_inp.weight'].T)
        out = np.zeros_like(h)
        for i, row in enumerate(h):
            top = np.argsort(-shares[i], kind='stable')[:self.used]
            share = shares[i][top] / (1 if self.arch == 'qwen2moe' else shares[i][top].sum())
            for e, s in zip(top, share):
                gate, up, down = (t[f'{b}ffn_{name}_exps.weight'][e] for name in ('gate', 'up', 'down'))
                out[i] += s * (down @ (silu(gate @ row) * (up @ row)))
        if self.arch == 'qwen2moe':
            gate, up, down = (t[f'{b}ffn_{name}_shexp.weight'] for name in ('gate', 'up', 'down'))
            shared = (silu(h @ gate.T) * (h @ up.T)) @ down.T
            out += shared / (1 + np.exp(-(h @ t[b + 'ffn_gate_inp_shexp.weight'])))[:, None]
        return out

    def log_probabilities(self, ids):
        t = self.tensors
        activation = gelu if self.gemma else silu
        x = t['token_embd.weight'][ids].astype(np.float64) * (math.sqrt(self.width) if self.gemma else 1)
        period = {'gemma2': 2, 'gemma3': 6}.get(self.arch, 0)
        for i in range(self.layers):
            b = f'blk.{i}.'
            local = self.window > 0 and (period == 0 or i % period < period - 1)
            a = self.apply(b + 'attn_output', self.attention(b, rms_norm(x, t[b + 'attn_norm.weight']), local))
            x = x + (rms_norm(a, t[b + 'post_attention_norm.weight']) if self.post_norms else a)
            h = rms_norm(x, t[b + 'ffn_norm.weight'])
            if self.experts:
                y = self.expert_mix(b, h)
            else:
                gate, up = np.split(self.apply(b + 'ffn_up', h), 2, -1) if self.fused else (
                    self.apply(b + 'ffn_gate', h), self.apply(b + 'ffn_up', h))
                y = self.apply(b + 'ffn_down', activation(gate) * up)
            x = x + (rms_norm(y, t[b + 'post_ffw_norm.weight']) if self.post_norms else y)
        output = t.get('output.weight', t['token_embd.weight']).astype(np.float64)
        logits = rms_norm(x, t['output_norm.weight']) @ output.T
        if self.logit_cap:
            logits = self.logit_cap * np.tanh(logits / self.logit_cap)
        return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(
            -1, keepdims=True)


LONG = {'long': [1.1, 1.6, 2.4, 4.0, 7.0, 12.0, 20.0, 31.5], 'short': [1.0, 1.1, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5],
        'attention': 1.19}
VARIANTS = {
    'llama': ('llama', {}),
    'one layer, tied': ('llama', {'layers': 1, 'tied': True}),
    'multi-query': ('llama', {'kv': 1}),
    'biases everywhere': ('llama', {'bias': True}),
    'biases everywhere, halves': ('qwen2', {'bias': True}),
    'internlm2': ('internlm2', {'bias': True}),
    **{f'head_dim {d}': ('llama' if d % 3 else 'qwen2', {'dim': d, 'heads': 2, 'kv': 1})
       for d in (10, 40, 72, 80, 96, 100, 112, 128, 192, 256)},
    'partial rotation': ('llama', {'rotary': 6}),
    'odd sizes': ('llama', {'width': 60, 'ffn': 75, 'dim': 20, 'heads': 3, 'kv': 3}),
    'linear': ('llama', {'rope': ('linear', {'factor': 4.0})}),
    'yarn': ('qwen2', {'rope': ('yarn', {'factor': 4.0, 'original': 16})}),
    'yarn, adjacent pairs': ('llama', {'rope': ('yarn', {'factor': 8.0, 'original': 4096}), 'dim': 64, 'base': 1e6}),
    'longrope, long': ('phi3', {'rope': ('longrope', {**LONG, 'original': 32, 'use_long': True}), 'context': 64}),
    'longrope, short': ('phi3', {'rope': ('longrope', {**LONG, 'original': 128, 'use_long': False})}),
    'llama 3 factors': ('llama', {'rope': ('factors', {'factors': [1, 1, 1, 2.5, 5, 8, 8, 8]}), 'base': 5e5}),
    'phi3': ('phi3', {'bias': True}),
    'phi3, window': ('phi3', {'window': 5}),
    'mistral': ('llama', {'window': 5}),
    'window of one': ('llama', {'window': 1}),
    'gemma': ('gemma', {'kv': 1, 'dim': 32}),
    'gemma2': ('gemma2', {'layers': 4, 'window': 7, 'score_cap': 2.0, 'logit_cap': 3.0}),
    'gemma3': ('gemma3', {'layers': 7, 'window': 6, 'base': 1e6, 'rope': ('linear', {'factor': 8.0})}),
    'qwen3': ('qwen3', {'tied': True}),
    'mixtral': ('llama', {'experts': 8, 'used': 2}),
    'one expert each': ('llama', {'experts': 5, 'used': 1}),
    'qwen2moe': ('qwen2moe', {'experts': 6, 'used': 2}),
    'qwen3moe': ('qwen3moe', {'experts': 32, 'used': 4}),
    'qwen3moe, all experts': ('qwen3moe', {'experts': 3, 'used': 3}),
}


def main():
    hetero, strategies = sys.argv[1], sys.argv[2:] or ['cpu']
    ids = [(i * 29 + 3 + i // 7) % VOCABULARY for i in range(TOKENS)]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        path, ids_path = os.path.join(folder, 'model.gguf'), os.path.join(folder, 'ids.json')
        with open(ids_path, 'w') as f:
            json.dump([ids], f)
        for name, (arch, settings) in VARIANTS.items():
            model = Model(arch, **settings)
            model.write(path)
            expected = model.log_probabilities(ids)
            for strategy in strategies:
                context = ['-c', str(model.context)] if model.context else []
                out = subprocess.run([hetero, 'logprobs', '-m', path, '--ids', ids_path, '--top', str(VOCABULARY),
                                      '--strategy', strategy, '--json', *context], check=True, stdout=subprocess.PIPE)
                found = json.loads(out.stdout)[0]
                worst = 0.0
                for i, row in enumerate(expected):
                    worst = max(worst, np.abs(row[found['top_ids'][i]] - found['top_logprobs'][i]).max())
                wrong += not worst <= 1e-3
                print(f'{name:28} {strategy:12} {worst:.1e}{"" if worst <= 1e-3 else "  WRONG"}', flush=True)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
