// hetero bench: tokens per second by prompt length, as llama-bench's table, for any number of
// configurations side by side.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <set>

#include "base/threads.h"
#include "cli/bench_worker.h"
#include "cli/commands.h"

namespace hetero {
namespace {

struct BenchOptions {
  ModelOptions model;
  std::vector<std::string> strategies = {"auto"};
  std::vector<std::string> syncs = {"fast"};
  std::vector<int> threads = {0};
  std::vector<std::string> kv_caches = {"auto"};
  std::vector<int64_t> prompts = {64, 256, 512};
  std::vector<int64_t> decodes = {32, 128};
  std::vector<int64_t> depths = {0};
  int repetitions = 5;
  std::string format = "table";
  bool json = false;
};

/// Everything about one configuration's process and what it answered.
struct Configuration {
  ModelOptions options;
  std::unique_ptr<BenchWorker> worker;
  nlohmann::ordered_json engine;  // what BenchWorker::open() answered
};

struct Row {
  SpeedTest test;
  const Configuration* configuration = nullptr;
  std::vector<double> samples;
  nlohmann::ordered_json memory = {{"resident_bytes", 0}, {"device_bytes", 0}, {"weight_bytes", 0}};
};

std::vector<SpeedTest> tests(const BenchOptions& o) {
  std::vector<SpeedTest> list;
  for (const int64_t depth : o.depths) {
    for (const int64_t prompt : o.prompts) {
      list.push_back({prompt, 0, depth});
    }
    for (const int64_t decode : o.decodes) {
      list.push_back({0, decode, depth});
    }
  }
  std::erase_if(list, [](const SpeedTest& t) { return t.prompt + t.decode == 0; });
  return list;
}

std::string join(const nlohmann::ordered_json& texts) {
  return fmt::format("{}", fmt::join(texts.get<std::vector<std::string>>(), "+"));
}

int threads_of(const Configuration& c) {
  const int all = static_cast<int>(available_cpus().size());
  return c.options.threads > 0 ? std::min(c.options.threads, all) : all;
}

nlohmann::ordered_json row_json(const Row& row) {
  const nlohmann::ordered_json& engine = row.configuration->engine;
  const Speed speed = summarize(row.samples);
  return {{"test", row.test.name()},
          {"strategy", engine["strategy"]},
          {"processors", engine["processors"]},
          {"sync", row.configuration->options.sync},
          {"threads", threads_of(*row.configuration)},
          {"activations", engine["activations"]},
          {"kv_cache", engine["kv_cache"]},
          {"prompt_tokens", row.test.prompt},
          {"decode_tokens", row.test.decode},
          {"depth", row.test.depth},
          {"avg_ts", speed.mean},
          {"stddev_ts", speed.stddev},
          {"median_ts", speed.median},
          {"samples_ts", row.samples},
          {"model", engine["name"]},
          {"parameters", engine["parameters"]},
          {"file_bytes", engine["file_bytes"]},
          {"resident_bytes", row.memory["resident_bytes"]},
          {"opened_bytes", engine["opened_bytes"]},
          {"device_bytes", row.memory["device_bytes"]},
          {"weight_bytes", row.memory["weight_bytes"]}};
}

const std::vector<std::string> kColumns = {"model",   "size", "params", "strategy", "processors", "sync",
                                           "threads", "kv",   "test",   "t/s",      "median",     "resident"};

std::vector<std::string> cells(const Row& row, const std::string& model) {
  const nlohmann::ordered_json& engine = row.configuration->engine;
  const auto mebibytes = [](const nlohmann::ordered_json& bytes) {
    return fmt::format("{:.1f} MiB", bytes.get<double>() / 1048576.0);
  };
  const Speed speed = summarize(row.samples);
  const std::string name = engine["name"];
  return {name.empty() ? model.substr(model.rfind('/') + 1) : name,
          mebibytes(engine["file_bytes"]),
          fmt::format("{:.1f} M", engine["parameters"].get<double>() / 1e6),
          engine["strategy"],
          join(engine["processors"]),
          row.configuration->options.sync,
          std::to_string(threads_of(*row.configuration)),
          engine["kv_cache"],
          row.test.name(),
          fmt::format("{:.2f} ± {:.2f}", speed.mean, speed.stddev),
          fmt::format("{:.2f}", speed.median),
          mebibytes(row.memory["resident_bytes"])};
}

/// Characters, not bytes: "±" is one.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

void print_table(const std::vector<Row>& rows, const std::string& model, bool markdown) {
  std::vector<std::vector<std::string>> lines = {kColumns};
  for (const Row& row : rows) {
    lines.push_back(cells(row, model));
  }
  std::vector<size_t> widths(kColumns.size(), 3);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], width(line[i]));
    }
  }
  const size_t first_number = 9;
  const auto print = [&](const std::vector<std::string>& line) {
    std::string text = markdown ? "|" : "";
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string fill(widths[i] - width(line[i]), ' ');
      const std::string cell = i < first_number ? line[i] + fill : fill + line[i];
      text += markdown ? " " + cell + " |" : cell + "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    fmt::print("{}\n", text);
  };
  print(lines[0]);
  if (markdown) {
    std::string rule = "|";
    for (size_t i = 0; i < widths.size(); ++i) {
      rule += " " + std::string(widths[i] - 1, '-') + (i < first_number ? "- |" : ": |");
    }
    fmt::print("{}\n", rule);
  }
  std::for_each(lines.begin() + 1, lines.end(), print);
}

void print_csv(const std::vector<Row>& rows) {
  bool first = true;
  for (const Row& row : rows) {
    const nlohmann::ordered_json json = row_json(row);
    std::vector<std::string> names;
    std::vector<std::string> values;
    for (const auto& [name, value] : json.items()) {
      names.push_back(name);
      if (value.is_array()) {
        std::vector<std::string> parts;
        for (const auto& v : value) {
          parts.push_back(v.is_string() ? v.get<std::string>() : v.dump());
        }
        values.push_back(fmt::format("{}", fmt::join(parts, " ")));
      } else {
        values.push_back(value.is_string() ? value.get<std::string>() : value.dump());
      }
      if (values.back().find_first_of(",\"\n") != std::string::npos) {
        std::string quoted;
        for (const char c : values.back()) {
          quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
        }
        values.back() = "\"" + quoted + "\"";
      }
    }
    if (std::exchange(first, false)) {
      fmt::print("{}\n", fmt::join(names, ","));
    }
    fmt::print("{}\n", fmt::join(values, ","));
  }
}

void print(const std::vector<Row>& rows, const BenchOptions& o) {
  if (o.format == "json") {
    auto list = nlohmann::ordered_json::array();
    for (const Row& row : rows) {
      list.push_back(row_json(row));
    }
    print_json(list);
  } else if (o.format == "csv") {
    print_csv(rows);
  } else {
    print_table(rows, o.model.model, o.format == "md");
  }
}

/// Opens all configurations, then takes the samples of each test in turns: A B C A B C.
Status measure(const BenchOptions& o, std::vector<Configuration>& configurations, std::vector<Row>& rows) {
  Progress progress;
  std::set<std::string> told;
  for (Configuration& c : configurations) {
    HETERO_TRY(c.engine, c.worker->open([&](const std::string& what, int done, int total) {
      progress.show(c.options.strategy + ": " + what, done, total);
    }));
    for (const std::string notice : c.engine["notices"]) {
      if (told.insert(notice).second) {
        progress.clear();
        fmt::print(stderr, "hetero: {}\n", notice);
      }
    }
  }
  for (const SpeedTest& test : tests(o)) {
    const size_t first = rows.size();
    for (Configuration& c : configurations) {
      progress.show(fmt::format("{}: {}: warming up", c.options.strategy, test.name()), 0, 0);
      HETERO_RETURN_IF_ERROR(c.worker->warm_up(test, [&](const std::string& what, int done, int total) {
        progress.show(fmt::format("{}: {}: {}", c.options.strategy, test.name(), what), done, total);
      }));
      rows.push_back({test, &c, {}});
    }
    for (int repetition = 0; repetition < o.repetitions; ++repetition) {
      for (size_t i = 0; i < configurations.size(); ++i) {
        Configuration& c = configurations[i];
        progress.show(fmt::format("{}: {}: run", c.options.strategy, test.name()), repetition + 1,
                      o.repetitions);
        HETERO_TRY(const double speed, c.worker->sample(test));
        rows[first + i].samples.push_back(speed);
        if (o.model.verbose) {
          progress.clear();
          fmt::print(stderr, "hetero: {}, threads {}: {}: {:.2f} t/s\n", c.options.strategy, threads_of(c),
                     test.name(), speed);
        }
      }
    }
    for (size_t i = 0; i < configurations.size(); ++i) {
      HETERO_TRY(rows[first + i].memory, configurations[i].worker->memory());
    }
  }
  return {};
}

Status run(BenchOptions o) {
  if (o.json) {
    o.format = "json";
  }
  int64_t context = 0;
  for (const SpeedTest& test : tests(o)) {
    context = std::max(context, test.context());
  }
  if (context == 0) {
    return invalid_argument("-p and -n: nothing to measure");
  }
  if (o.model.context == 0) {
    o.model.context = context;
  }
  std::vector<Configuration> configurations;
  std::random_device seeds;
  for (const std::string& strategy : o.strategies) {
    for (const std::string& sync : o.syncs) {
      for (const int threads : o.threads) {
        for (const std::string& kv_cache : o.kv_caches) {
          Configuration c;
          c.options = o.model;
          c.options.strategy = strategy;
          c.options.sync = sync;
          c.options.threads = threads;
          c.options.kv_cache = kv_cache;
          HETERO_RETURN_IF_ERROR(engine_options(c.options).status());
          configurations.push_back(std::move(c));
        }
      }
    }
  }
  for (Configuration& c : configurations) {
    HETERO_TRY(c.worker, BenchWorker::start(c.options, seeds()));
  }
  std::vector<Row> rows;
  const Status status = measure(o, configurations, rows);
  std::erase_if(rows, [](const Row& row) { return row.samples.empty(); });
  if (status.ok() || status.code() == Code::kCancelled) {
    print(rows, o);  // after Ctrl-C, what there is
  }
  return status;
}

}  // namespace

Command register_bench(CLI::App& app) {
  CLI::App* command = app.add_subcommand("bench", "Tokens per second, as llama-bench's table");
  auto o = std::make_shared<BenchOptions>();
  add_model_options(*command, o->model);
  for (const char* single : {"--strategy", "--sync", "--threads", "--kv-cache", "--trace"}) {
    command->remove_option(command->get_option(single));
  }
  const auto counts = CLI::Range(int64_t{0}, int64_t{1} << 31);
  command
      ->add_option("--strategy", o->strategies, "One or several, compared in one run: gpu,npu-padding,tensor")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--sync", o->syncs, "How to wait: fast, driver, or both, compared in one run")
      ->delimiter(',')
      ->check(CLI::IsMember({"fast", "driver"}))
      ->capture_default_str();
  command->add_option("--threads", o->threads, "CPUs to use (default: all), one number or several")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  command
      ->add_option("--kv-cache", o->kv_caches,
                   "What the KV cache holds: f16, q8_0, auto (f16; f32 for models in F32), or several")
      ->delimiter(',')
      ->check(CLI::IsMember({"auto", "f16", "q8_0"}))
      ->capture_default_str();
  command->add_option("-p,--prompt", o->prompts, "Tokens of prompts (pp); 0: none")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command->add_option("-n,--tokens", o->decodes, "Tokens to decode (tg); 0: none")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command->add_option("-d,--depth", o->depths, "Tokens in the context before each test starts")
      ->delimiter(',')
      ->check(counts)
      ->capture_default_str();
  command->add_option("-r,--repetitions", o->repetitions, "Runs of each test")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("-o,--output", o->format, "table, json, csv or md")
      ->check(CLI::IsMember({"table", "json", "csv", "md"}))
      ->capture_default_str();
  command->add_flag("--json", o->json, "As -o json");
  command->footer(
      "ppN: a prompt of N tokens, drawn anew for each run; tgN: N tokens decoded one by one; @ dN: behind N "
      "tokens\n"
      "of context. Each configuration is a process of its own; their runs take turns, so that a busy moment "
      "of the\n"
      "machine strikes all alike. Ctrl-C prints what was measured so far. resident: this process at its "
      "highest.\n"
      "Examples:\n"
      "  hetero bench -m model.gguf\n"
      "  hetero bench -m model.gguf -p 64,256,512 -n 32 -r 9 --strategy gpu,npu-padding,tensor -o md\n"
      "  hetero bench -m model.gguf -p 256 -n 32 --strategy layer --sync fast,driver\n"
      "  hetero bench -m model.gguf -p 0 -n 32 -d 0,1024 --threads 1,2 --json");
  return [o] { return run(*o); };
}

}  // namespace hetero
