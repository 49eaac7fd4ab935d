#!/usr/bin/env python3
"""hetero simulate as a user meets it: the contract's fields, same result every time, what it must show."""
import json
import os
import subprocess
import tempfile
import unittest

HETERO = os.environ['HETERO_BINARY']
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'data', 'paper.json')
MODEL = os.environ.get('HETERO_MODEL', os.environ['HETERO_MODEL_DEFAULT'])

IDS = '''bandwidth_gpu_alone bandwidth_gpu_npu npu_order_ratio prefill_llama8b_256_tensor
prefill_internlm_256_tensor tensor_over_layer_mean tensor_over_layer_32 decode_llama8b_tensor decode_llama3b_tensor
decode_internlm_tensor decode_tensor_over_layer_llama8b p525_over_online_prepare p525_over_padding p525_over_pipe
online_prepare_graph_ms_135 online_prepare_graph_ms_1000 sync_prefill_tensor_256 sync_prefill_layer_mean
sync_prefill_tensor_mean sync_decode_llama8b ablation_activation_centric ablation_order ablation_weight_centric
ablation_sync energy_tensor_vs_gpu energy_tensor_vs_layer game_fps_gpu_only_prefill game_fps_tensor_prefill
game_fps_gpu_only_decode decode_slowdown_with_game'''.split()


def hetero(*args):
    return subprocess.run([HETERO, *args], capture_output=True, timeout=300)


class Simulate(unittest.TestCase):
    def out(self, *args):
        result = hetero(*args)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout

    def assert_error(self, *args, code, part):
        result = hetero(*args)
        error = result.stderr.decode().strip()
        self.assertEqual(result.returncode, code, error)
        self.assertRegex(error, r'^hetero: error: [^\n]*$')
        self.assertIn(part, error)

    def test_the_contracts_fields_and_the_same_bytes_every_time(self):
        args = ['simulate', '--shape', 'llama-3-8b', '--prompt', '525', '--decode', '4', '--json']
        first = self.out(*args)
        self.assertEqual(first, self.out(*args))
        r = json.loads(first)
        self.assertTrue(r['simulated'])
        for field in ('prefill_tps', 'decode_tps', 'ttft_ms', 'energy_j'):
            self.assertGreater(r[field], 0, field)
        self.assertEqual({e['processor'] for e in r['timeline']}, {'gpu0', 'npu0'})
        self.assertGreater(len(r['timeline']), 1000)

    def test_the_papers_figures(self):
        text = self.out('simulate', '--paper', '--json')
        entries = json.loads(text)
        self.assertEqual([e['id'] for e in entries], IDS)
        off = {'calibration': [], 'validation': []}
        for e in entries:
            self.assertEqual(set(e), {'id', 'what', 'unit', 'paper', 'simulated', 'ratio', 'used_for'})
            off[e['used_for']].append((abs(e['ratio'] - 1), e['id']))
        self.assertLessEqual(max(off['calibration'])[0], 0.1, max(off['calibration']))
        # What is reached; docs/simulation.md tells why the others miss.
        self.assertGreaterEqual(sum(o <= 0.15 for o, _ in off['validation']), WITHIN_15)
        self.assertGreaterEqual(sum(o <= 0.30 for o, _ in off['validation']), WITHIN_30)
        # The same bytes on every machine and with every compiler. Who changes the model, the solver or the executor
        # looks at what it does to these figures, writes the file again, and the table of docs/simulation.md with it:
        #   hetero simulate --paper --json > tests/data/paper.json
        with open(GOLDEN, 'rb') as f:
            golden = f.read()
        before = {e['id']: e['simulated'] for e in json.loads(golden)}
        changed = [f"{e['id']}: {before.get(e['id'])} -> {e['simulated']}" for e in entries
                   if before.get(e['id']) != e['simulated']]
        self.assertEqual(text == golden, True, f'differs from {GOLDEN}: ' + '; '.join(changed))

    def test_what_if(self):
        def tps(*args):
            return json.loads(self.out('simulate', '--shape', 'llama-3.2-1b', '--prompt', '128', '--decode', '2', '--json', *args))
        base = tps()
        self.assertGreater(tps('--set', 'npu.tflops=40')['prefill_tps'], base['prefill_tps'])
        faster = tps('--set', 'dram.gbps=120', '--set', 'gpu.gbps=90')
        self.assertGreater(faster['decode_tps'], 1.3 * base['decode_tps'])

    def test_a_chip_of_ones_own_and_a_sweep(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'mine.json')
            number = lambda v: {'value': v, 'unit': '', 'source': 'me', 'basis': 'measured'}
            with open(path, 'w', encoding='utf-8') as f:
                json.dump({'name': 'mine', 'title': 'mine', 'chip': {'activation_bytes': number(4)},
                           'dram': {'gbps': number(20)},
                           'control': {'sleep_grain_us': number(60), 'poll_us': number(1)},
                           'processors': [{'id': 'cpu', 'kind': 'cpu', 'name': 'x', 'model': 'roofline',
                                           'gbps': number(10), 'submit_us': number(2), 'finish_us': number(2),
                                           'curve': [{'rows': number(1), 'gflops': number(5)},
                                                     {'rows': number(128), 'gflops': number(50)}]}]}, f)
            r = json.loads(self.out('simulate', '--soc', path, '--shape', 'smollm2-135m', '--prompt', '16:64:16',
                                    '--decode', '1', '--json'))
            self.assertEqual([s['prompt_tokens'] for s in r['sweep']], [16, 32, 48, 64])
            self.assert_error('simulate', '--soc', path, '--paper', code=2, part='gpu0')

    def test_plans_for_a_simulated_chip(self):
        # The rows of the paper's Table 3. The first one, [4096,4096] with one row, and the fifth one down to 193 rows
        # come out if products are profiled one at a time; docs/simulation.md tells what else follows from that.
        def strategies(phase, tokens, *args):
            plan = json.loads(self.out('plan', '--shape', 'llama-3-8b', '--soc', 'snapdragon-8-gen-3', '--phase', phase,
                                       '--tokens', str(tokens), '--strategy', 'tensor', '--json', *args))
            self.assertTrue(plan['simulated'])
            return {tuple(o['weight']): o['strategy'] for o in plan['operators']}
        square, wide, down = (4096, 4096), (28672, 4096), (4096, 14336)
        alone = ('--set', 'chip.profile_alone=1')
        rows = ((128, square, 'npu'), (200, square, 'padding'), (255, square, 'padding'), (256, square, 'npu'),
                (257, square, 'activation-centric'), (272, square, 'activation-centric'), (256, down, 'weight-centric'),
                (257, down, 'hybrid'), (300, down, 'hybrid'), (350, down, 'hybrid'), (384, down, 'hybrid'))
        for args, also in (((), ()), (alone, ((193, square, 'padding'),))):
            decode = strategies('decode', 256, *args)
            self.assertEqual([decode[w] for w in (square, wide, down)],
                             ['weight-centric' if args else 'gpu', 'weight-centric', 'gpu'])
            for tokens, weight, strategy in rows + also:
                self.assertEqual(strategies('prefill', tokens, *args)[weight], strategy, (args, tokens, weight))

    def test_kv_cache_of_8_bits(self):
        def decode_bytes(*args):
            r = json.loads(self.out('simulate', '--shape', 'llama-3-8b', '--prompt', '4096', '--decode', '1',
                                    '--strategy', 'gpu', '--json', *args))
            return r['decode']['memory_gbps'] * r['decode']['time_ms']  # MB
        # Keys and values of 32 layers, 8 heads of 128, 4096 tokens, read once: 2 bytes each, or 34 for 32.
        cached = 2 * 32 * 8 * 128 * 4096 / 1e6
        self.assertAlmostEqual(decode_bytes() - decode_bytes('--kv-cache', 'q8_0'), cached * (2 - 34 / 32), delta=1)
        self.assertEqual(decode_bytes(), decode_bytes('--kv-cache', 'f16'))
        for command in ('simulate', 'plan'):
            self.assert_error(command, '--shape', 'llama-3-8b', '--kv-cache', 'q2', code=2, part='--kv-cache')
        plans = [json.loads(self.out('plan', '--shape', 'llama-3-8b', '--soc', 'snapdragon-8-gen-3', '--phase',
                                     'decode', '--tokens', '4096', '--json', '--kv-cache', kind))
                 for kind in ('f16', 'q8_0')]
        self.assertLess(plans[1]['predicted_ms'], plans[0]['predicted_ms'])

    @unittest.skipUnless(os.path.exists(MODEL), f'no model at {MODEL}')
    def test_simulated_processors_write_the_same_text(self):
        args = ['run', '-m', MODEL, '--raw', '-p', 'The capital of France is', '-n', '6', '--temp', '0', '--json']
        plain = json.loads(self.out(*args, '--strategy', 'cpu'))
        for strategy in ('layer', 'tensor'):
            r = json.loads(self.out(*args, '--strategy', strategy, '--soc', 'snapdragon-8-gen-3'))
            self.assertEqual(r['ids'], plain['ids'])
            self.assertEqual({p['provider'] for p in r['processors']}, {'sim'})

    def test_wrong_calls(self):
        self.assert_error('simulate', code=2, part='--shape')
        self.assert_error('simulate', '--shape', 'gpt-9', code=1, part='llama-3-8b')
        self.assert_error('simulate', '--soc', 'toaster', '--paper', code=1, part='snapdragon-8-gen-3')
        self.assert_error('simulate', '--shape', 'llama-3-8b', '--prompt', '1:2', code=2, part='--prompt 1:2')
        self.assert_error('simulate', '--shape', 'llama-3-8b', '--set', 'npu.wheels=4', code=2, part='wheels')
        self.assert_error('simulate', '--shape', 'llama-3-8b', '--strategy', 'magic', code=2, part='magic')


WITHIN_15 = 19
WITHIN_30 = 24

if __name__ == '__main__':
    unittest.main()
