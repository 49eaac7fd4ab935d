#include "cli/bench_worker.h"

#include <fmt/format.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/memory.h"

namespace hetero {
namespace {

using Json = nlohmann::ordered_json;

// Commands and answers are JSON documents, one a line. Answers: {"progress", "done", "total"} any
// number of times, then {"ok"} or {"error", "code"}.

bool write_line(int fd, const Json& json) {
  const std::string line = dump_json(json, -1) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t written = write(fd, line.data() + done, line.size() - done);
    if (written < 0 && errno != EINTR) {
      return false;
    }
    done += static_cast<size_t>(std::max<ssize_t>(written, 0));
  }
  return true;
}

SpeedTest test_from(const Json& json) {
  return {json.at("prompt").get<int64_t>(), json.at("decode").get<int64_t>(),
          json.at("depth").get<int64_t>()};
}

/// What the engine turned out to be.
Json describe(const Engine& engine) {
  auto processors = Json::array();
  for (const auto& p : engine.processors()) {
    processors.push_back(p->info().id);
  }
  int64_t parameters = 0;
  for (const Weight& w : engine.graph().weights) {
    parameters += w.rows * w.cols;
  }
  return {{"name", engine.graph().shape.name},
          {"parameters", parameters},
          {"file_bytes", engine.file().file_bytes()},
          {"strategy", strategy_name(engine.selection().strategy)},
          {"activations", engine.selection().int8_activations ? "q8" : "f32"},
          {"kv_cache", traits(engine.kv_cache()).name},
          {"processors", processors},
          {"notices", engine.selection().notices},
          // Programs, drivers and their threads, before any weight was read.
          {"opened_bytes", resident_bytes()}};
}

/// The child's side: obeys until its commands end.
class Server {
 public:
  Server(ModelOptions options, uint64_t seed, int answers)
      : options_(std::move(options)), seed_(seed), answers_(answers) {}

  Result<Json> obey(const Json& command) {
    const std::string what = command.at("do");
    if (what == "open") {
      return open();
    }
    if (what == "memory") {
      return Json{{"resident_bytes", peak_resident_bytes()},
                  {"device_bytes", engine_->device_bytes()},
                  {"weight_bytes", engine_->weight_bytes()}};
    }
    const SpeedTest test = test_from(command.at("test"));
    if (what == "warm up") {
      HETERO_RETURN_IF_ERROR(meter_->warm_up(test));
      return Json();
    }
    quiet_ = true;  // telling of progress would cost time
    const Result<double> speed = meter_->sample(test);
    quiet_ = false;
    HETERO_RETURN_IF_ERROR(speed.status());
    return Json(*speed);
  }

 private:
  Result<Json> open() {
    HETERO_TRY(EngineOptions options, engine_options(options_));
    options.progress = [this, last = Nanos{}](const std::string& what, int done, int total) mutable {
      if (!quiet_ && now() - last > std::chrono::milliseconds(100)) {
        last = now();
        write_line(answers_, {{"progress", what}, {"done", done}, {"total", total}});
      }
    };
    options.compile = EngineOptions::Compile::kAhead;
    options.adapt = false;  // a configuration is measured as it was asked for
    if (options.request.strategy == Strategy::kNpuOnline) {
      options.cache_dir.clear();  // its graphs are to be compiled, not read from the disk
    }
    HETERO_TRY(engine_, Engine::open(std::move(options)));
    meter_ = std::make_unique<SpeedMeter>(*engine_, seed_);
    return describe(*engine_);
  }

  ModelOptions options_;
  uint64_t seed_;
  int answers_;
  bool quiet_ = false;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<SpeedMeter> meter_;
};

void serve(const ModelOptions& options, uint64_t seed, int commands, int answers) {
  spdlog::set_level(options.verbose ? spdlog::level::debug : spdlog::level::warn);
  Server server(options, seed, answers);
  FILE* lines = fdopen(commands, "r");
  char* line = nullptr;
  size_t capacity = 0;
  while (lines != nullptr && getline(&line, &capacity, lines) > 0) {
    Json answer;
    try {
      const Result<Json> done = server.obey(Json::parse(line));
      answer = done.ok() ? Json{{"ok", *done}}
                         : Json{{"error", done.status().message()},
                                {"code", static_cast<int>(done.status().code())}};
    } catch (const std::bad_alloc&) {
      answer = {{"error", "out of memory"}, {"code", static_cast<int>(Code::kResourceExhausted)}};
    } catch (const std::exception& e) {
      answer = {{"error", fmt::format("internal: {}", e.what())},
                {"code", static_cast<int>(Code::kInternal)}};
    }
    if (!write_line(answers, answer)) {
      return;
    }
  }
}

}  // namespace

Result<std::unique_ptr<BenchWorker>> BenchWorker::start(const ModelOptions& options, uint64_t seed) {
  int commands[2] = {-1, -1};
  int answers[2] = {-1, -1};
  if (pipe(commands) != 0 || pipe(answers) != 0) {
    return io_error(fmt::format("a pipe to a process: {}", std::strerror(errno)));
  }
  const pid_t pid = fork();
  if (pid < 0) {
    return io_error(fmt::format("a process of its own for each configuration: {}", std::strerror(errno)));
  }
  if (pid == 0) {
    std::signal(SIGINT, SIG_IGN);  // the parent decides, and ends this process
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
    close(commands[1]);
    close(answers[0]);
    serve(options, seed, commands[0], answers[1]);
    _exit(0);  // the parent's buffers are not to be written twice
  }
  close(commands[0]);
  close(answers[1]);
  return std::unique_ptr<BenchWorker>(new BenchWorker(pid, commands[1], answers[0]));
}

BenchWorker::~BenchWorker() {
  close(commands_);
  close(answers_);
  kill(pid_, SIGKILL);  // it holds nothing that must be kept
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<std::string> BenchWorker::read_line() {
  for (;;) {
    if (const size_t end = pending_.find('\n'); end != std::string::npos) {
      std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      return line;
    }
    if (interrupted()) {
      return cancelled("stopped");
    }
    pollfd ready{answers_, POLLIN, 0};
    if (poll(&ready, 1, 200) <= 0) {
      continue;  // to look for Ctrl-C
    }
    char part[4096];
    const ssize_t count = read(answers_, part, sizeof(part));
    if (count == 0 || (count < 0 && errno != EINTR)) {
      return internal_error("the process that measured ended unexpectedly");
    }
    pending_.append(part, static_cast<size_t>(std::max<ssize_t>(count, 0)));
  }
}

Result<Json> BenchWorker::ask(const Json& command, const WorkerProgress& progress) {
  if (!write_line(commands_, command)) {
    return internal_error("the process that measured ended unexpectedly");
  }
  for (;;) {
    HETERO_TRY(const std::string line, read_line());
    const Json answer = Json::parse(line, nullptr, false);
    if (answer.contains("ok")) {
      return answer["ok"];
    }
    if (answer.contains("error")) {
      return Status(static_cast<Code>(answer["code"].get<int>()), answer["error"].get<std::string>());
    }
    if (progress && answer.contains("progress")) {
      progress(answer["progress"], answer["done"], answer["total"]);
    }
  }
}

namespace {
Json to_json(const SpeedTest& test) {
  return {{"prompt", test.prompt}, {"decode", test.decode}, {"depth", test.depth}};
}
}  // namespace

Result<Json> BenchWorker::open(const WorkerProgress& progress) {
  return ask({{"do", "open"}}, progress);
}

Status BenchWorker::warm_up(const SpeedTest& test, const WorkerProgress& progress) {
  return ask({{"do", "warm up"}, {"test", to_json(test)}}, progress).status();
}

Result<double> BenchWorker::sample(const SpeedTest& test) {
  HETERO_TRY(const Json answer, ask({{"do", "sample"}, {"test", to_json(test)}}, {}));
  return answer.get<double>();
}

Result<Json> BenchWorker::memory() {
  return ask({{"do", "memory"}}, {});
}

}  // namespace hetero
