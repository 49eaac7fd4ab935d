"""OpenVINO GenAI behind a pipe: one JSON request a line, {"prompt", "decode"}; answers {"prefill_ts", "decode_ts"}.

  genai_worker.py MODEL THREADS

Every request has a prompt drawn anew, since GenAI keeps the cache of prompts that it saw.
"""
import json
import sys

import numpy as np
import openvino as ov
import openvino_genai as genai


def main():
    model, threads = sys.argv[1], int(sys.argv[2])
    pipeline = genai.LLMPipeline(model, 'CPU', INFERENCE_NUM_THREADS=threads)
    vocabulary = len(pipeline.get_tokenizer().get_vocab())
    random = np.random.default_rng()
    print(json.dumps({'version': genai.get_version()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        ids = random.integers(0, vocabulary, (1, request['prompt'])).astype(np.int64)
        config = genai.GenerationConfig()
        config.max_new_tokens = request['decode'] + 1  # the first comes with the prompt
        config.ignore_eos = True
        result = pipeline.generate(genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids))), config)
        metrics = result.perf_metrics
        if metrics.get_num_generated_tokens() != request['decode'] + 1:
            sys.exit(f"asked for {request['decode'] + 1} tokens, got {metrics.get_num_generated_tokens()}")
        answer = {'prefill_ts': request['prompt'] * 1e3 / metrics.get_ttft().mean}
        if request['decode'] > 0:
            answer['decode_ts'] = 1e3 / metrics.get_tpot().mean
        print(json.dumps(answer), flush=True)


main()
