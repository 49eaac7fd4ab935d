#!/usr/bin/env python3
"""The command line as a user meets it: the contract's JSON, exit codes, one-line errors, Ctrl-C."""
import json
import os
import re
import signal
import struct
import subprocess
import tempfile
import unittest

HETERO = os.environ['HETERO_BINARY']
MODEL = os.environ.get('HETERO_MODEL', os.environ['HETERO_MODEL_DEFAULT'])
CASES = os.environ.get('HETERO_CASES', os.environ['HETERO_CASES_DEFAULT'])
needs_model = unittest.skipUnless(os.path.exists(MODEL), f'no model at {MODEL}')
needs_hostile = unittest.skipUnless(os.path.isdir(f'{CASES}/hostile'), f'no test data at {CASES}/hostile')

needs_tiny = unittest.skipUnless(os.path.isdir(f'{CASES}/tiny'), f'no test data at {CASES}/tiny')


def hetero(*args, **kwargs):
    return subprocess.run([HETERO, *args], capture_output=True, timeout=300, **kwargs)


class Cli(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.folder.cleanup()

    def file(self, name, content):
        path = os.path.join(self.folder.name, name)
        with open(path, 'wb') as f:
            f.write(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def json_of(self, *args, **kwargs):
        result = hetero(*args, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return json.loads(result.stdout)

    def assert_error(self, result, code, *parts):
        error = result.stderr.decode()
        self.assertEqual(result.returncode, code, error)
        self.assertRegex(error.splitlines()[-1], r'^hetero: error: .')
        self.assertEqual(error.count('hetero: error: '), 1, error)
        self.assertEqual(len(error.strip().splitlines()), 1, error)
        for part in parts:
            self.assertIn(part, error)

    def test_every_command_has_help_with_an_example(self):
        for command in ['devices', 'run', 'chat', 'logprobs', 'tokenize', 'detokenize', 'render', 'inspect',
                        'quantize', 'perplexity', 'import', 'bench', 'characterize', 'simulate']:
            result = hetero(command, '--help')
            self.assertEqual(result.returncode, 0)
            self.assertIn(b'Example', result.stdout, command)

    def test_wrong_calls_exit_with_2(self):
        self.assert_error(hetero('fly'), 2)
        self.assert_error(hetero('run'), 2, '--model')
        self.assert_error(hetero('run', '-m', 'x.gguf'), 2, '-p')
        self.assert_error(hetero('run', '-m', 'x.gguf', '-p', 'x', '--temp', 'hot'), 2, '--temp')
        for command in [['run', '-p', 'x'], ['chat'], ['bench'], ['plan', '--profile', 'p.json']]:
            self.assert_error(hetero(*command, '-m', 'x.gguf', '--memory-ratio', '0.9'), 2, '--memory-ratio')

    def test_a_missing_model_is_named(self):
        self.assert_error(hetero('run', '-m', '/nonexistent.gguf', '-p', 'x'), 1, '/nonexistent.gguf')

    def test_devices(self):
        processors = self.json_of('devices', '--json')['processors']
        self.assertEqual(processors[0]['id'], 'cpu')
        for p in processors:
            for field in ['id', 'kind', 'name', 'provider', 'stand_in', 'memory_bytes', 'unified_memory', 'features']:
                self.assertIn(field, p)

    @needs_model
    def test_run_prints_the_contract_and_nothing_else(self):
        j = self.json_of('run', '-m', MODEL, '-p', 'The capital of France is', '--raw', '-n', '5', '--temp', '0',
                         '--strategy', 'cpu', '--json')
        self.assertEqual(j['prompt_ids'], [504, 3575, 282, 4649, 314])
        self.assertEqual(j['prompt_tokens'], 5)
        self.assertEqual(len(j['ids']), 5)
        self.assertTrue(j['text'].startswith(' Paris.'), j['text'])
        self.assertEqual(j['strategy'], 'cpu')
        self.assertGreater(j['decode_tps'], 0)
        self.assertGreater(j['memory']['resident_bytes'], 0)
        self.assertEqual([p['id'] for p in j['processors']], ['cpu'])
        for field in ['busy_ms', 'wait_ms', 'ops', 'macs']:
            self.assertIn(field, j['processors'][0])
        for field in ['predicted_ms', 'measured_ms', 'best_single_predicted_ms']:
            self.assertIn(field, j['coexecution'])

    @needs_model
    def test_run_streams_the_text_on_stdout_only(self):
        r = hetero('run', '-m', MODEL, '-p', 'The capital of France is', '--raw', '-n', '3', '--temp', '0',
                   '--strategy', 'cpu')
        self.assertEqual(r.returncode, 0)
        self.assertTrue(r.stdout.decode().startswith(' Paris.'))

    @needs_model
    def test_the_same_seed_gives_the_same_text(self):
        args = ['run', '-m', MODEL, '-p', 'Tell me a story', '-n', '12', '--strategy', 'cpu', '--json', '--seed']
        first, second, other = (self.json_of(*args, seed)['ids'] for seed in ['1', '1', '2'])
        self.assertEqual(first, second)
        self.assertNotEqual(first, other)

    @needs_model
    def test_a_prompt_beyond_the_context_is_an_error(self):
        r = hetero('run', '-m', MODEL, '-p', 'word ' * 100, '-c', '32', '--strategy', 'cpu')
        self.assert_error(r, 1, 'context')

    @needs_model
    def test_generation_stops_at_the_end_of_the_context_and_says_so(self):
        r = hetero('run', '-m', MODEL, '-p', 'Count', '--raw', '-c', '8', '-n', '50', '--ignore-eos', '--strategy', 'cpu')
        self.assertEqual(r.returncode, 0, r.stderr.decode())
        self.assertIn(b'context of 8 tokens is full', r.stderr)

    @needs_model
    def test_logprobs(self):
        ids = self.file('ids.json', [[504, 3575, 282, 4649, 314], [1604]])
        first, second = self.json_of('logprobs', '-m', MODEL, '--ids', ids, '--top', '3', '--strategy', 'cpu', '--json')
        self.assertEqual(first['ids'], [504, 3575, 282, 4649, 314])
        self.assertEqual([len(x) for x in first['top_ids']], [3] * 5)
        self.assertEqual(len(first['next_logprob']), 4)
        self.assertAlmostEqual(first['mean_nll'], 3.691631, delta=0.01)
        self.assertIsNone(second['mean_nll'])

    @needs_model
    def test_logprobs_refuses_ids_that_the_model_lacks(self):
        ids = self.file('ids.json', [[1, 99999999]])
        self.assert_error(hetero('logprobs', '-m', MODEL, '--ids', ids, '--strategy', 'cpu'), 2, '99999999')
        self.assert_error(hetero('logprobs', '-m', MODEL, '--ids', '1, ' * 40000, '--strategy', 'cpu'), 1, '(120000 bytes)')
        for bad in [b'{', b'[1, 2]', b'[[]]', b'[["a"]]', b'[[-1]]']:
            self.assert_error(hetero('logprobs', '-m', MODEL, '--ids', self.file('bad.json', bad)), 1, 'bad.json')

    @needs_model
    def test_tokenize_and_back(self):
        texts = ['Hello world', 'naïve café 東京 👍🏽', '']
        batch = self.file('texts.json', texts)
        lists = self.json_of('tokenize', '-m', MODEL, '--batch', batch, '--no-special', '--json')['ids']
        self.assertEqual(lists[0], self.json_of('tokenize', '-m', MODEL, '-p', 'Hello world', '--no-special', '--json')['ids'])
        back = self.json_of('detokenize', '-m', MODEL, '--ids', self.file('ids.json', lists), '--json')['text']
        self.assertEqual(back, texts)
        # Of wrong ids only what is wrong is shown.
        for bad in [[[1, [2] * 50000]], [['x' * 50000]], b'[[1, "' + b'x' * 50000]:
            wrong = hetero('detokenize', '-m', MODEL, '--ids', self.file('ids.json', bad))
            self.assert_error(wrong, 1, 'ids.json')
            self.assertLess(len(wrong.stderr), 500)

    @needs_model
    def test_render(self):
        context = self.file('c.json', {'messages': [{'role': 'user', 'content': 'Hi'}], 'add_generation_prompt': True})
        text = self.json_of('render', '-m', MODEL, '--context', context, '--json')['text']
        self.assertTrue(text.endswith('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n'), text)
        template = self.file('t.jinja', b'{{ messages[0].content | upper }}')
        self.assertEqual(self.json_of('render', '--template', template, '--context', context, '--json')['text'], 'HI')

    @needs_model
    def test_inspect(self):
        j = self.json_of('inspect', MODEL, '--json')
        self.assertEqual(j['metadata']['general.architecture'], 'llama')
        self.assertEqual(len(j['tensors']), 272)

    @needs_model
    def test_no_mmap_gives_the_same_tokens(self):
        args = ['run', '-m', MODEL, '-p', 'The capital of France is', '--raw', '-n', '5', '--temp', '0',
                '--strategy', 'cpu', '--json']
        self.assertEqual(self.json_of(*args)['ids'], self.json_of(*args, '--no-mmap')['ids'])

    @needs_model
    def test_a_cache_of_8_bits_takes_about_half_the_memory(self):
        args = ['run', '-m', MODEL, '-p', 'The capital of France is', '--raw', '-n', '5', '--temp', '0', '-c', '512',
                '--strategy', 'cpu', '--json']
        half, eight = self.json_of(*args), self.json_of(*args, '--kv-cache', 'q8_0')
        self.assertEqual((half['kv_cache'], eight['kv_cache']), ('F16', 'Q8_0'))
        self.assertEqual(half['memory']['kv_cache_bytes'], 30 * 2 * 512 * 192 * 2)
        self.assertEqual(eight['memory']['kv_cache_bytes'], 30 * 2 * 512 * 192 * 34 // 32)
        self.assertTrue(eight['text'].startswith(' Paris.'), eight['text'])

    @needs_tiny
    def test_heads_that_blocks_of_the_cache_do_not_divide_are_an_error(self):
        model = f'{CASES}/tiny/llama-gqa-untied-f32.gguf'
        result = hetero('run', '-m', model, '-p', 'a', '--raw', '--strategy', 'cpu', '--kv-cache', 'q8_0')
        self.assert_error(result, 1, model, '--kv-cache', 'multiple of 32')
        self.assert_error(hetero('run', '-m', model, '-p', 'a', '--kv-cache', 'q4_0'), 2, '--kv-cache')

    @needs_model
    def test_perplexity_scores_every_token_once(self):
        text = self.file('text.txt', ('The sky is blue because air scatters blue light more than red light. ' * 4).encode())
        args = ['perplexity', '-m', MODEL, '-f', text, '--strategy', 'cpu', '--json']
        whole = self.json_of(*args)
        self.assertEqual(whole['windows'], 1)
        self.assertEqual(whole['scored'], whole['tokens'] - 1)  # nothing stands before the first one
        ids = self.json_of('tokenize', '-m', MODEL, '-f', text, '--no-special', '--json')['ids']
        reference = self.json_of('logprobs', '-m', MODEL, '--ids', self.file('ids.json', [ids]), '--strategy', 'cpu',
                                 '--json')[0]['mean_nll']
        self.assertAlmostEqual(whole['mean_nll'], reference, delta=1e-4)
        self.assertAlmostEqual(whole['perplexity'], 2.718281828459045 ** whole['mean_nll'], delta=1e-6)
        cut = self.json_of(*args, '--window', '24', '--stride', '10')
        self.assertEqual(cut['scored'], whole['tokens'] - 1)
        self.assertGreater(cut['windows'], 3)
        self.assertGreater(cut['mean_nll'], whole['mean_nll'])  # it knows less of the repetition
        self.assert_error(hetero(*args, '--window', '8', '--stride', '8'), 2, '--stride 8')
        empty = self.file('empty.txt', b'')
        self.assert_error(hetero('perplexity', '-m', MODEL, '-f', empty, '--strategy', 'cpu'), 2, 'empty.txt')

    SCHEMA = {
        'type': 'object',
        'properties': {
            'name': {'type': 'string', 'minLength': 1, 'maxLength': 6},
            'age': {'type': 'integer', 'minimum': 0, 'maximum': 120},
            'score': {'type': 'number', 'exclusiveMinimum': -1, 'maximum': 1},
            'kind': {'enum': ['cat', 'dog', None]},
            'tags': {'type': 'array', 'items': {'type': 'string', 'pattern': '^[a-c]{1,3}$'}, 'maxItems': 3},
        },
        'required': ['name', 'age', 'kind'],
        'additionalProperties': False,
    }

    def assert_follows_schema(self, value):
        try:
            import jsonschema
            jsonschema.validate(value, self.SCHEMA)
        except ImportError:
            pass
        self.assertLessEqual({'name', 'age', 'kind'}, set(value))
        self.assertLessEqual(set(value), set(self.SCHEMA['properties']))
        self.assertTrue(1 <= len(value['name']) <= 6, value)
        self.assertTrue(isinstance(value['age'], int) and 0 <= value['age'] <= 120, value)
        self.assertIn(value['kind'], ['cat', 'dog', None])
        self.assertTrue(-1 < value.get('score', 0) <= 1, value)
        self.assertLessEqual(len(value.get('tags', [])), 3)
        for tag in value.get('tags', []):
            self.assertRegex(tag, r'\A[a-c]{1,3}\Z')

    @needs_tiny
    def test_structured_output_is_valid_whatever_the_sampling(self):
        schema = self.file('schema.json', self.SCHEMA)
        sampling = [['--temp', '0'], ['--temp', '2', '--top-k', '0', '--top-p', '1', '--min-p', '0'], ['--top-k', '3'],
                    ['--top-p', '0.3', '--temp', '1.5'], ['--min-p', '0.3', '--repeat-penalty', '1.5'], ['--ignore-eos']]
        for options in sampling:
            for seed in range(3):
                j = self.json_of('run', '-m', f'{CASES}/tiny/llama-tied-f16.gguf', '-p', 'a', '--raw', '-n', '200', '--strategy',
                                 'cpu', '--seed', str(seed), '--json-schema', schema, '--json', *options)
                with self.subTest(options=options, seed=seed, text=j['text']):
                    self.assertEqual(j['stop'], 'end')
                    self.assert_follows_schema(json.loads(j['text']))

    @needs_model
    def test_grammar_stop_and_bias(self):
        args = ['run', '-m', MODEL, '--strategy', 'cpu', '--temp', '0', '--json', '-p']
        grammar = self.file('g.gbnf', b'root ::= "maybe" | "never"')
        for option in [['--grammar', grammar], ['--grammar-text', 'root ::= "maybe" | "never"']]:
            j = self.json_of(*args, 'Is the sky green?', *option)
            self.assertIn(j['text'], ['maybe', 'never'])
            self.assertEqual(j['stop'], 'end')
        raw = ['--raw', '-n', '8']
        plain = self.json_of(*args, 'The capital of France is', *raw)
        self.assertTrue(plain['text'].startswith(' Paris.'))
        stopped = self.json_of(*args, 'The capital of France is', *raw, '--stop', 'nothing', '--stop', 'ris.')
        self.assertEqual((stopped['text'], stopped['stop']), (' Pa', 'text'))
        biased = self.json_of(*args, 'The capital of France is', *raw, '--logit-bias', f"{plain['ids'][0]}=-inf")
        self.assertNotEqual(biased['ids'][0], plain['ids'][0])
        wrong = ['run', '-m', MODEL, '-p', 'x', '--strategy', 'cpu']
        self.assert_error(hetero(*wrong, '--logit-bias', 'a=1'), 2, '--logit-bias a=1')
        self.assert_error(hetero(*wrong, '--logit-bias', '99999999=1'), 2, '99999999')
        self.assert_error(hetero(*wrong, '--grammar-text', 'root ::= x'), 1, 'rule x')
        self.assert_error(hetero(*wrong, '--json-schema', self.file('s.json', {'not': {}})), 1, 's.json', '#/not')
        self.assert_error(hetero(*wrong, '--grammar', grammar, '--json-schema', grammar), 2, '--grammar')

    @needs_tiny
    def test_quantize(self):
        source = f'{CASES}/tiny/qllama-f16.gguf'
        out = os.path.join(self.folder.name, 'out.gguf')
        for name in ['Q4_0', 'Q4_1', 'Q8_0', 'Q4_K', 'Q6_K', 'F16', 'q8_0']:
            summary = self.json_of('quantize', source, out, name, '--json')
            self.assertIn(name.upper(), summary['tensors'])
            self.assertIn('F32', summary['tensors'])
            j = self.json_of('run', '-m', out, '--raw', '-p', 'a', '-n', '2', '--strategy', 'cpu', '--json')
            self.assertGreater(len(j['ids']), 0)
        self.assert_error(hetero('quantize', source, out, 'Q9'), 2, 'Q9')
        self.assert_error(hetero('quantize', out, out, 'F16'), 2, 'overwritten')
        self.assert_error(hetero('quantize', f'{CASES}/tiny/qllama-q4_0.gguf', out, 'Q8_0'), 1, 'Q4_0')
        self.assertEqual(os.listdir(self.folder.name), ['out.gguf'])

    def hugging_face_folder(self):
        """A Llama of one layer with 32-wide rows, made here."""
        folder = os.path.join(self.folder.name, 'Tiny-Llama')
        os.mkdir(folder)
        vocab = {'<unk>': 0, '<s>': 1, '</s>': 2, **{f'<0x{i:02X}>': 3 + i for i in range(256)}}
        for token in ['\u2581', 'a', 'b', 'ab', '\u2581ab']:
            vocab[token] = len(vocab)
        shapes = {'model.embed_tokens.weight': [len(vocab), 32], 'model.norm.weight': [32],
                  'model.layers.0.input_layernorm.weight': [32], 'model.layers.0.post_attention_layernorm.weight': [32],
                  'model.layers.0.mlp.gate_proj.weight': [64, 32], 'model.layers.0.mlp.up_proj.weight': [64, 32],
                  'model.layers.0.mlp.down_proj.weight': [32, 64]}
        for name in 'qkvo':
            shapes[f'model.layers.0.self_attn.{name}_proj.weight'] = [32, 32]
        header, data = {}, b''
        for name, shape in shapes.items():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            values = [((i * 2654435761 + len(name)) % 1000) / 1000 - 0.5 for i in range(count)]
            header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [len(data), len(data) + 4 * count]}
            data += struct.pack(f'<{count}f', *values)
        text = json.dumps(header).encode()
        special = [{'id': i, 'content': t, 'special': True} for t, i in list(vocab.items())[:3]]
        files = {
            'model.safetensors': struct.pack('<Q', len(text)) + text + data,
            'config.json': {'architectures': ['LlamaForCausalLM'], 'num_hidden_layers': 1, 'hidden_size': 32,
                            'intermediate_size': 64, 'num_attention_heads': 2, 'vocab_size': len(vocab),
                            'max_position_embeddings': 64, 'rms_norm_eps': 1e-5},
            'tokenizer.json': {'added_tokens': special, 'normalizer': {'type': 'Prepend', 'prepend': '\u2581'},
                               'model': {'type': 'BPE', 'unk_token': '<unk>', 'byte_fallback': True, 'vocab': vocab,
                                         'merges': ['a b', '\u2581 ab']}},
            'tokenizer_config.json': {'bos_token': '<s>', 'eos_token': '</s>', 'add_bos_token': True,
                                      'chat_template': '{{ messages[0].content }}'},
        }
        for name, content in files.items():
            self.file(os.path.join('Tiny-Llama', name), content)
        return folder

    def test_import(self):
        folder = self.hugging_face_folder()
        out = os.path.join(self.folder.name, 'out.gguf')
        summary = self.json_of('import', folder, '-o', out, '--json')
        self.assertEqual((summary['architecture'], summary['tensors']), ('llama', 11))
        metadata = self.json_of('inspect', out, '--json')['metadata']
        self.assertEqual(metadata['general.name'], 'Tiny-Llama')
        ids = self.json_of('tokenize', '-m', out, '-p', 'ab \u00e9', '--json')['ids']
        self.assertEqual(ids[:2], [1, 263])  # BOS, then one token for " ab"
        plain = self.json_of('run', '-m', out, '-p', 'ab', '-n', '4', '--temp', '0', '--strategy', 'cpu', '--json')
        self.assertEqual(plain['prompt_ids'], [1, 263])
        small = os.path.join(self.folder.name, 'small.gguf')
        self.json_of('import', folder, '-o', small, '--type', 'q8_0', '--json')
        self.assertLess(os.path.getsize(small), os.path.getsize(out))
        self.json_of('run', '-m', small, '-p', 'ab', '-n', '4', '--temp', '0', '--strategy', 'cpu', '--json')
        self.assert_error(hetero('import', folder, '-o', out, '--type', 'Q9'), 2, '--type Q9')
        self.assert_error(hetero('import', '/nonexistent', '-o', out), 1, '/nonexistent/config.json')
        os.truncate(os.path.join(folder, 'model.safetensors'), 5000)
        self.assert_error(hetero('import', folder, '-o', out), 1, 'model.safetensors')

    @needs_model
    def test_truncated_and_scribbled_models_are_refused(self):
        with open(MODEL, 'rb') as f:
            head = f.read(4 << 20)
        cut = self.file('cut.gguf', head)
        self.assert_error(hetero('inspect', cut), 1, 'cut.gguf')
        self.assert_error(hetero('run', '-m', cut, '-p', 'x', '--strategy', 'cpu'), 1, 'cut.gguf')
        scribbled = self.file('scribbled.gguf', head[:8] + struct.pack('<Q', 1 << 60) + head[16:])
        self.assert_error(hetero('inspect', scribbled), 1, 'scribbled.gguf')

    @needs_hostile
    def test_hostile_files_never_crash_or_hang(self):
        with open(f'{CASES}/hostile/manifest.json') as f:
            manifest = json.load(f)
        for entry in manifest if isinstance(manifest, list) else manifest['files']:
            path = f"{CASES}/hostile/{entry['file']}"
            run = ['run', '-m', path, '-p', 'a', '-n', '2', '--strategy', 'cpu']
            r = hetero(*run, '--raw')
            with self.subTest(entry['file'], what=entry['what']):
                inspected = hetero('inspect', path)
                if inspected.returncode != 0:
                    self.assert_error(inspected, 1, entry['file'])
                elif entry['expect'] == 'reject':  # well formed, but not for this engine
                    self.assertIn(entry['file'], ['kv-arch-unknown.gguf', 'vo-model-unknown.gguf'])
                if entry['file'].startswith('ct-'):
                    self.assert_error(hetero(*run), 1, 'chat')
                self.assertIn(r.returncode, [0, 1], r.stderr.decode())
                if entry['expect'] == 'reject':
                    self.assert_error(r, 1, entry['file'])
                elif entry['expect'] == 'accept':
                    self.assertEqual(r.returncode, 0, r.stderr.decode())

    @needs_model
    def test_bench_prints_the_contract_for_each_configuration_and_test(self):
        rows = self.json_of('bench', '-m', MODEL, '-p', '8,16', '-n', '4', '-d', '0,8', '-r', '3', '--strategy', 'cpu',
                            '--threads', '1,2', '--json')
        tests = ['pp8', 'pp16', 'tg4', 'pp8 @ d8', 'pp16 @ d8', 'tg4 @ d8']
        self.assertEqual([(r['test'], r['threads']) for r in rows],
                         [(t, n) for t in tests for n in (1, min(2, len(os.sched_getaffinity(0))))])
        for row in rows:
            self.assertEqual(row['strategy'], 'cpu')
            self.assertEqual(row['processors'], ['cpu'])
            self.assertEqual(row['sync'], 'fast')
            self.assertEqual(len(row['samples_ts']), 3)
            self.assertAlmostEqual(row['avg_ts'], sum(row['samples_ts']) / 3)
            self.assertEqual(row['median_ts'], sorted(row['samples_ts'])[1])
            self.assertGreater(min(row['samples_ts']), 0)
            self.assertGreater(row['stddev_ts'], 0)
            self.assertGreater(row['resident_bytes'], 0)
            self.assertEqual(row['file_bytes'], os.path.getsize(MODEL))

    @needs_model
    def test_bench_has_tables_for_people_spreadsheets_and_pages(self):
        args = ['bench', '-m', MODEL, '-p', '8', '-n', '0', '-r', '1', '--strategy', 'cpu', '-o']
        head, rule, row = hetero(*args, 'md').stdout.decode().splitlines()
        self.assertRegex(head, r'^\| model +\|.*\| test +\|.*t/s \|')
        self.assertRegex(rule, r'^\|[-| :]+\|$')
        self.assertRegex(row, r'\| pp8 +\| +[\d.]+ \u00b1 [\d.]+ \|')
        head, row = hetero(*args, 'csv').stdout.decode().splitlines()
        self.assertEqual(dict(zip(head.split(','), row.split(',')))['test'], 'pp8')
        self.assertEqual(len(hetero(*args, 'table').stdout.decode().splitlines()), 2)

    def test_bench_refuses_wrong_calls(self):
        self.assert_error(hetero('bench', '-m', 'x.gguf', '-o', 'pdf'), 2, '--output')
        self.assert_error(hetero('bench', '-m', 'x.gguf', '--strategy', 'cpu,best'), 2, 'best')
        self.assert_error(hetero('bench', '-m', 'x.gguf', '--sync', 'fast,slow'), 2, '--sync')
        self.assert_error(hetero('bench', '-m', 'x.gguf', '-p', '0', '-n', '0'), 2, 'nothing to measure')
        self.assert_error(hetero('bench', '-m', '/nonexistent.gguf', '--strategy', 'cpu'), 1, '/nonexistent.gguf')

    def test_characterize_reports_every_series(self):
        report, soc = self.file('report.html', b''), self.file('soc.json', b'')
        c = self.json_of('characterize', '--processors', 'cpu', '--threads', '1', '--width', '256', '--time', '6',
                         '-o', report, '--as-soc', soc, '--json')
        (cpu,) = c['products']
        self.assertEqual(cpu['id'], 'cpu')
        self.assertGreater(cpu['peak']['gflops'], 0)
        self.assertGreater(len(cpu['by_rows']), 3)
        for point in cpu['by_rows']:
            self.assertAlmostEqual(point['of_peak'], point['gflops'] / cpu['peak']['gflops'])
        with open(report) as f:
            page = f.read()
        self.assertIn('Speed of a product by its rows', page)
        self.assertNotIn('<script', page)
        with open(soc) as f:
            chip = json.load(f)
        self.assertEqual([p['id'] for p in chip['processors']], ['cpu'])
        self.assertEqual(len(chip['processors'][0]['curve']), len(cpu['by_rows']))

    def test_characterize_shows_the_stairs_and_the_order_of_a_simulated_npu(self):
        c = self.json_of('characterize', '--soc', 'snapdragon-8-gen-3', '--processors', 'gpu0,npu0', '--json')
        self.assertTrue(c['profile']['identity']['simulated'])
        gpu, npu = c['products']
        times = {p['m']: p['median_ns'] for p in npu['by_rows']}
        self.assertEqual(times[40], times[64])  # tiles of 32 rows (NPU-1)
        self.assertGreater(times[72], times[64])
        times = {p['m']: p['median_ns'] for p in gpu['by_rows']}
        self.assertGreater(times[64], times[40])
        self.assertTrue(any(max(a['given']['median_ns'], a['exchanged']['median_ns'])
                            > 1.5 * min(a['given']['median_ns'], a['exchanged']['median_ns'])
                            for a in npu['by_order']))
        self.assertEqual({p['tokens'] for p in c['predictions']}, {1, 64, 256, 512})

    @needs_tiny
    def test_a_simulated_chip_is_profiled_as_its_file_says(self):
        model = f'{CASES}/tiny/llama-gqa-untied-f32.gguf'
        args = ['profile', '-m', model, '--soc']
        self.assert_error(hetero(*args, 'snapdragon-8-gen-3'), 2, '-o FILE')
        with open(os.path.join(os.path.dirname(__file__), '..', 'soc', 'snapdragon-8-gen-3.json')) as f:
            chip = json.load(f)
        times = []
        for alone in [0, 1]:
            chip['chip']['profile_alone'] = {'value': alone}
            p = self.json_of(*args, self.file('chip.json', chip), '--processors', 'cpu,gpu0', '-o', self.file('p.json', b''), '--json')
            gpu = next(p for p in p['processors'] if p['id'] == 'gpu0')
            times.append(next(s for s in gpu['series'] if s['kind'] == 'linear')['points'][0]['median_ns'])
        self.assertGreater(times[1], 10 * times[0])  # what the driver takes for a submission that is waited for

    def test_characterize_where_a_driver_times_batches_only(self):
        if not any(p['id'] == 'gpu0' and p['stand_in'] for p in self.json_of('devices', '--json')['processors']):
            self.skipTest('no stand-in for a GPU')
        c = self.json_of('characterize', '--processors', 'gpu0', '--width', '256', '--time', '6', '--json',
                         env={**os.environ, 'HETERO_OPENCL_INTERVALS': 'batch'})
        for point in c['products'][0]['by_rows']:
            self.assertLess(point['of_peak'], 2)  # both are measured; a time of nothing is a million times the peak

    def test_characterize_refuses_wrong_calls(self):
        self.assert_error(hetero('characterize', '--processors', 'gpu99'), 1, 'gpu99')
        self.assert_error(hetero('characterize', '--shape', 'gpt-9'), 1, 'gpt-9')
        self.assert_error(hetero('characterize', '--soc', 'abacus'), 1, 'abacus')
        self.assert_error(hetero('characterize', '--processors', 'cpu', '--peak', 'cpu'), 2, '--peak')

    @needs_model
    def test_bench_prints_what_there_is_after_ctrl_c(self):
        p = subprocess.Popen([HETERO, 'bench', '-m', MODEL, '-p', '8', '-n', '0', '-r', '1000000', '--strategy', 'cpu',
                              '-o', 'csv', '-v'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertIn(b'pp8: ', p.stderr.readline())
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err.decode())
        self.assertIn('pp8', out.decode().splitlines()[1])

    @needs_model
    def test_ctrl_c_ends_a_run_cleanly(self):
        p = subprocess.Popen([HETERO, 'run', '-m', MODEL, '-p', 'Tell a long story.', '-n', '4000', '--ignore-eos',
                              '--strategy', 'cpu'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdout.read(1)  # it is generating
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        self.assertEqual(p.returncode, 130, err.decode())
        self.assertIn(b'processor', err)  # the table of what was done so far

    @needs_model
    def test_chat_answers_and_ctrl_c_stops_the_answer_only(self):
        # Without bufsize=0 the first read would take more than it returns, and communicate() would lose the rest.
        p = subprocess.Popen([HETERO, 'chat', '-m', MODEL, '--strategy', 'cpu', '--temp', '0', '-n', '4000', '-v'],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        p.stdin.write(b'Write a very long story about the sea.\n')
        first = p.stdout.read(1)  # it is answering
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(b'Say yes.\n/bye\n', timeout=120)
        self.assertEqual(p.returncode, 0, err.decode())
        self.assertEqual(err.count(b'hetero: stopped\n'), 1, err.decode())
        answers = re.findall(r'hetero: \d+ tokens \((\d+) kept\) at [\d.]+ tok/s, (\d+) at', err.decode())
        self.assertEqual(len(answers), 2, err.decode())
        (_, stopped_after), (kept, answered) = answers
        self.assertLess(int(stopped_after), 4000)
        self.assertGreater(int(kept), 0)
        self.assertGreater(int(answered), 0)
        self.assertGreater(len((first + out).strip().splitlines()), 1, out.decode())


if __name__ == '__main__':
    unittest.main()
