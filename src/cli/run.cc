// hetero run: one prompt, one completion.
#include <fmt/format.h>

#include <cstdio>

#include "base/files.h"
#include "cli/chat_prompt.h"
#include "cli/commands.h"
#include "engine/generate.h"

namespace hetero {
namespace {

struct RunOptions {
  ModelOptions model;
  SamplerOptions sampler;
  ConstraintOptions constraints;
  std::string prompt;
  std::string prompt_file;
  std::string system;
  int64_t tokens = 128;
  bool ignore_eos = false;
  bool raw = false;
  bool json = false;
};

const char* stop_name(Stop stop) {
  switch (stop) {
    case Stop::kEnd:
      return "end";
    case Stop::kText:
      return "text";
    case Stop::kLength:
      return "length";
    case Stop::kContext:
      return "context";
    case Stop::kCancelled:
      return "cancelled";
  }
  return "";
}

double millis(Nanos t) {
  return static_cast<double>(t.count()) / 1e6;
}

struct Phase {
  std::vector<ProcessorUse> prefill;
  std::vector<ProcessorUse> all;
};

nlohmann::ordered_json processors_json(Engine& engine, const Phase& use) {
  auto list = nlohmann::ordered_json::array();
  for (size_t i = 0; i < engine.processors().size(); ++i) {
    const ProcessorInfo& info = engine.processors()[i]->info();
    const ProcessorUse& u = use.all[i];
    list.push_back({{"id", info.id},
                    {"name", info.name},
                    {"provider", info.provider},
                    {"stand_in", info.stand_in},
                    {"busy_ms", millis(u.busy)},
                    {"wait_ms", millis(u.wait)},
                    {"ops", u.steps},
                    {"macs", u.macs},
                    {"prefill_busy_ms", millis(use.prefill[i].busy)},
                    {"prefill_macs", use.prefill[i].macs}});
  }
  return list;
}

/// CPU time of the thread that controls the processors: in all, for each token, and as a part of the
/// time that passed.
nlohmann::ordered_json control_json(const Generation& g) {
  const auto part = [](Nanos cpu, Nanos time, int64_t tokens) -> nlohmann::ordered_json {
    return {{"cpu_ms", millis(cpu)},
            {"cpu_ms_per_token", tokens > 0 ? millis(cpu) / static_cast<double>(tokens) : 0.0},
            {"load", time.count() > 0 ? millis(cpu) / millis(time) : 0.0}};
  };
  return {{"prefill", part(g.prefill_control, g.prefill, g.prompt_tokens - g.reused_tokens)},
          {"decode", part(g.decode_control, g.decode, g.decoded)}};
}

double weight_ratio(const Engine& engine) {
  return static_cast<double>(engine.weight_bytes()) / static_cast<double>(engine.file().file_bytes());
}

/// Predictions are null without a profile.
nlohmann::ordered_json coexecution_json(const Session& session, const Generation& g) {
  const Session::Predicted& p = session.predicted();
  const auto time = [&](Nanos t) {
    return p.known && t > Nanos{} ? nlohmann::ordered_json(millis(t)) : nlohmann::ordered_json(nullptr);
  };
  return {{"predicted_ms", time(p.time)},
          {"measured_ms", millis(g.prefill + g.decode)},
          {"best_single_predicted_ms", time(p.best_single)}};
}

nlohmann::ordered_json result_json(Session& session, const std::vector<TokenId>& prompt, const Generation& g,
                                   const Phase& use) {
  Engine& engine = session.engine();
  return {{"text", g.text},
          {"prompt_ids", prompt},
          {"ids", g.ids},
          {"stop", stop_name(g.stop)},
          {"prompt_tokens", g.prompt_tokens},
          {"prefill_tps", g.prefill_tps()},
          {"decode_tps", g.decode_tps()},
          {"ttft_ms", millis(g.first_token)},
          {"strategy", strategy_name(engine.selection().strategy)},
          {"activations", engine.selection().int8_activations ? "q8" : "f32"},
          {"kv_cache", traits(engine.kv_cache()).name},
          {"sync", sync_name(engine.options().sync)},
          {"processors", processors_json(engine, use)},
          {"control", control_json(g)},
          {"coexecution", coexecution_json(session, g)},
          {"memory",
           {{"file_bytes", engine.file().file_bytes()},
            {"resident_bytes", peak_resident_bytes()},
            {"device_bytes", engine.device_bytes()},
            {"kv_cache_bytes", engine.kv_cache_bytes()},  // with the context full
            // Weights in memory in the end: pages of the file, and NPUs' copies. The rest of the process
            // is caches, activations, and what drivers and compilers keep for themselves.
            {"weight_bytes", engine.weight_bytes()},
            {"weight_ratio", weight_ratio(engine)},
            {"process_bytes", resident_bytes()}}}};
}

void print_table(Engine& engine, const Generation& g, const Phase& use) {
  fmt::print(
      stderr,
      "\nprompt {} tokens at {:.1f} tok/s, answer {} tokens at {:.1f} tok/s, first token after {:.0f} ms\n",
      g.prompt_tokens, g.prefill_tps(), g.ids.size(), g.decode_tps(), millis(g.first_token));
  int64_t all_prefill = 0;
  int64_t all_decode = 0;
  for (size_t i = 0; i < use.all.size(); ++i) {
    all_prefill += use.prefill[i].macs;
    all_decode += use.all[i].macs - use.prefill[i].macs;
  }
  const auto share = [](int64_t part, int64_t all) {
    return all > 0 ? fmt::format("{:.0f}%", 100.0 * static_cast<double>(part) / static_cast<double>(all))
                   : std::string("-");
  };
  fmt::print(stderr, "strategy {}\n{:<10} {:<10} {:<9} {:>13} {:>13} {:>13} {:>13}\n",
             strategy_name(engine.selection().strategy), "processor", "provider", "stand-in", "prefill MACs",
             "prefill busy", "decode MACs", "decode busy");
  for (size_t i = 0; i < use.all.size(); ++i) {
    const ProcessorInfo& info = engine.processors()[i]->info();
    fmt::print(stderr, "{:<10} {:<10} {:<9} {:>13} {:>10.0f} ms {:>13} {:>10.0f} ms\n", info.id,
               info.provider, info.stand_in ? "yes" : "no", share(use.prefill[i].macs, all_prefill),
               millis(use.prefill[i].busy), share(use.all[i].macs - use.prefill[i].macs, all_decode),
               millis(use.all[i].busy - use.prefill[i].busy));
  }
  const auto control = control_json(g);
  const auto percent = [&](const char* phase) { return 100.0 * control[phase]["load"].get<double>(); };
  fmt::print(
      stderr,
      "sync {}: the control thread used {:.1f}% of a core in prefill ({:.3f} ms for each token), {:.1f}% in "
      "decode ({:.3f} ms)\n",
      sync_name(engine.options().sync), percent("prefill"),
      control["prefill"]["cpu_ms_per_token"].get<double>(), percent("decode"),
      control["decode"]["cpu_ms_per_token"].get<double>());
  const auto megabytes = [](Bytes bytes) { return static_cast<double>(bytes) / 1e6; };
  fmt::print(
      stderr,
      "memory: model file {:.1f} MB, weights in memory {:.1f} MB ({:.2f} of the file), process {:.1f} MB "
      "(peak {:.1f}), on devices {:.1f} MB\n",
      megabytes(engine.file().file_bytes()), megabytes(engine.weight_bytes()), weight_ratio(engine),
      megabytes(resident_bytes()), megabytes(peak_resident_bytes()), megabytes(engine.device_bytes()));
}

/// What each kind of work took: predicted by the plan, and measured.
void print_steps(Executor& executor) {
  fmt::print(stderr, "{:<10} {:<16} {:>8} {:>7} {:>7} {:>13} {:>12}\n", "processor", "operator", "columns",
             "tokens", "times", "predicted us", "measured us");
  for (const Executor::StepReport& r : executor.report()) {
    const std::string predicted =
        r.predicted > Nanos{} ? fmt::format("{:.1f}", 1000 * millis(r.predicted)) : "-";
    fmt::print(stderr, "{:<10} {:<16} {:>8} {:>7} {:>7} {:>13} {:>12.1f}\n", r.processor, r.op, r.columns,
               r.tokens, r.times, predicted, 1000 * millis(r.measured));
  }
}

/// The first answer does not wait for a profile; the processors are measured behind it.
Status measure_for_next_time(Engine& engine) {
  if (!engine.lacks_profile() || engine.dropped().size() > 0) {
    return {};
  }
  fmt::print(stderr,
             "hetero: plans went by fixed rules; the processors are measured once for the next run (at most "
             "8 s, Ctrl-C skips it)\n");
  return engine.measure_for_next_time(std::chrono::seconds(8), &interrupted());
}

Status run(const RunOptions& o) {
  GenerateOptions options;
  options.sampler = o.sampler;
  HETERO_RETURN_IF_ERROR(apply(o.constraints, options));
  HETERO_TRY(const OpenedModel model, open_model(o.model));
  std::string text = o.prompt;
  if (!o.prompt_file.empty()) {
    HETERO_TRY(text, read_text_file(o.prompt_file));
  }
  Engine& engine = *model.engine;
  Session& session = *model.session;
  std::vector<TokenId> prompt;
  if (o.raw) {
    HETERO_TRY(prompt, engine.tokenizer().encode(text, true, false));
  } else {
    HETERO_TRY(const ChatPrompt chat, ChatPrompt::create(engine));
    HETERO_TRY(prompt, chat.encode(messages(o.system, text)));
  }
  if (static_cast<int64_t>(prompt.size()) > engine.context()) {
    return resource_exhausted(
        fmt::format("the prompt has {} tokens, but the context holds {} (-c sets it, the model "
                    "allows {})",
                    prompt.size(), engine.context(), engine.graph().shape.context));
  }
  HETERO_RETURN_IF_ERROR(session.prepare(static_cast<int64_t>(prompt.size())));
  Trace trace;
  if (!o.model.trace.empty()) {
    session.executor().set_trace(&trace);
  }

  options.max_tokens = o.tokens;
  options.ignore_eos = o.ignore_eos;
  options.cancel = &interrupted();
  Phase use;
  bool broken_pipe = false;
  const auto result = generate(
      session, prompt, options,
      [&](std::string_view piece) {
        if (!o.json && !broken_pipe) {
          fmt::print("{}", piece);
          if (std::fflush(stdout) != 0) {
            broken_pipe = true;
            interrupted() = true;  // nobody reads any more
          }
        }
      },
      [&] { use.prefill = session.executor().use(); });
  HETERO_RETURN_IF_ERROR(result.status());
  use.all = session.executor().use();
  if (use.prefill.empty()) {
    use.prefill = use.all;
  }
  if (o.json) {
    print_json(result_json(session, prompt, *result, use));
  } else {
    fmt::print("\n");
    std::fflush(stdout);
    if (result->stop == Stop::kContext) {
      fmt::print(stderr, "hetero: stopped: the context of {} tokens is full (-c sets it)\n",
                 engine.context());
    }
    print_table(engine, *result, use);
    if (o.model.verbose) {
      print_steps(session.executor());
    }
  }
  if (!o.model.trace.empty()) {
    session.executor().set_trace(nullptr);
    HETERO_RETURN_IF_ERROR(trace.write(o.model.trace));
  }
  if (result->stop == Stop::kCancelled) {
    return cancelled("stopped");
  }
  return measure_for_next_time(engine);
}

}  // namespace

Command register_run(CLI::App& app) {
  CLI::App* command = app.add_subcommand("run", "Complete a prompt");
  auto o = std::make_shared<RunOptions>();
  add_model_options(*command, o->model);
  auto* prompt = command->add_option("-p,--prompt", o->prompt, "The prompt");
  auto* file = command->add_option("-f,--file", o->prompt_file, "Read the prompt from FILE");
  prompt->excludes(file);
  command->add_option("--system", o->system, "System message of the chat template");
  command->add_option("-n,--tokens", o->tokens, "Most tokens to generate")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->capture_default_str();
  add_sampler_options(*command, o->sampler);
  add_constraint_options(*command, o->constraints);
  command->add_flag("--ignore-eos", o->ignore_eos, "Go on after the end of the answer");
  command->add_flag("--raw", o->raw, "Take the prompt as it is, without the chat template");
  command->add_flag("--json", o->json, "Print one JSON document instead of the stream");
  command->footer(
      "Examples:\n"
      "  hetero run -m model.gguf -p \"Why is the sky blue?\"\n"
      "  hetero run -m model.gguf -p \"Why is the sky blue?\" --strategy tensor --temp 0\n"
      "  hetero run -m model.gguf --raw -p \"The capital of France is\" -n 16 --json\n"
      "  hetero run -m model.gguf -p \"A hobbit, as JSON\" --json-schema person.json\n"
      "  hetero run -m model.gguf -p \"Is water wet?\" --grammar-text 'root ::= \"yes\" | \"no\"'");
  command->callback([prompt, file] {
    if (prompt->count() + file->count() == 0) {
      throw CLI::RequiredError("-p TEXT or -f FILE");
    }
  });
  return [o] { return run(*o); };
}

}  // namespace hetero
