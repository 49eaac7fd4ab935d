// Runs for as long as it is told to: random lengths, strategies, ways to wait, turns on a filled cache,
// cancellations. Ends with an error if memory grows, if something hangs, or if tokens depend on any of
// it.
//
//   soak MODEL [SECONDS] [SEED] [STRATEGY...]
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "engine/generate.h"

namespace hetero {
namespace {

constexpr Strategy kStrategies[] = {Strategy::kCpu,      Strategy::kGpu,   Strategy::kNpuPadding,
                                    Strategy::kNpuPipe,  Strategy::kLayer, Strategy::kTensor,
                                    Strategy::kNpuOnline};
constexpr auto kHang = std::chrono::seconds(120);
constexpr Bytes kSlack = Bytes{32} << 20;

/// Ends the process when nobody has called alive() for too long.
class Watchdog {
 public:
  Watchdog() : thread_([this] { watch(); }) {}
  ~Watchdog() {
    stop_ = true;
    thread_.join();
  }
  void alive(std::string what) {
    const std::lock_guard lock(mutex_);
    what_ = std::move(what);
    last_ = now();
  }

 private:
  void watch() {
    while (!stop_) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      const std::lock_guard lock(mutex_);
      if (now() - last_ > kHang) {
        fmt::print(stderr, "soak: hangs in {}\n", what_);
        std::_Exit(3);
      }
    }
  }
  std::mutex mutex_;
  std::string what_;
  Nanos last_ = now();
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class Soak {
 public:
  Soak(std::string model, Nanos time, uint32_t seed, std::vector<Strategy> strategies)
      : model_(std::move(model)), end_(now() + time), random_(seed), strategies_(std::move(strategies)) {}

  Status run() {
    // The first round warms up: libraries, pools, caches of drivers.
    for (int round = 0; round < 2 || now() < end_; ++round) {
      for (const Strategy strategy : strategies_) {
        if (round >= 2 && now() > end_) {
          break;
        }
        HETERO_RETURN_IF_ERROR(
            with_engine(strategy).with_prefix(fmt::format("strategy {}", strategy_name(strategy))));
      }
      if (generations_ == 0) {
        return unavailable("no strategy's processors are here");
      }
      const Bytes resident = resident_bytes();
      fmt::print("round {}: {} generations, {} cancelled, {} tokens, {:.1f} MB resident, {:.1f} allocated\n",
                 round, generations_, cancelled_, tokens_, static_cast<double>(resident) / 1e6,
                 allocated() / 1e6);
      std::fflush(stdout);
      first_ = round == 1 ? resident : first_;
      if (round > 1 && resident > first_ + first_ / 10 + kSlack) {
        return resource_exhausted(fmt::format("memory grew from {} to {} bytes", first_, resident));
      }
    }
    return {};
  }

 private:
  /// By malloc, in blocks that are in use: what grows here is lost, what grows only in resident memory is not
  /// used.
  static double allocated() {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
  }

  int64_t any(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(random_); }

  Status with_engine(Strategy strategy) {
    EngineOptions options;
    options.model = model_;
    options.request.strategy = strategy;
    options.sync = any(0, 3) == 0 ? Sync::kDriver : Sync::kFast;
    options.compile = any(0, 1) == 0 ? EngineOptions::Compile::kAhead : EngineOptions::Compile::kBehind;
    options.npu_share = static_cast<double>(any(1, 9)) / 10.0;
    dog_.alive(fmt::format("opening for {}", strategy_name(strategy)));
    auto opened = Engine::open(options);
    if (opened.status().code() == Code::kUnavailable) {
      return {};  // no such processor here
    }
    HETERO_RETURN_IF_ERROR(opened.status());
    HETERO_TRY(const auto session, (*opened)->new_session());
    for (int i = 0; i < 6; ++i) {
      HETERO_RETURN_IF_ERROR(generate_once(**opened, *session, strategy));
    }
    return {};
  }

  Status generate_once(Engine& engine, Session& session, Strategy strategy) {
    const int64_t most = std::min<int64_t>(engine.context() - 24, 700);
    // Few distinct lengths of long prompts: npu-online compiles for each.
    const int64_t length = any(0, 2) > 0 ? any(1, 40) : strategy == Strategy::kNpuOnline ? 64 : any(1, most);
    std::vector<TokenId> prompt;
    for (int64_t i = 0; i < length; ++i) {
      prompt.push_back(static_cast<TokenId>((i * 31 + length) % (engine.graph().shape.vocabulary - 1)));
    }
    if (any(0, 1) == 0) {
      session.truncate(0);
    }
    dog_.alive(fmt::format("{}, a prompt of {} tokens", strategy_name(strategy), length));
    if (any(0, 1) == 0) {
      HETERO_RETURN_IF_ERROR(session.prepare(length));
    }
    std::atomic<bool> cancel = false;
    std::thread canceller;
    const bool cancelling = any(0, 3) == 0;
    if (cancelling) {
      canceller = std::thread([&cancel, wait = any(0, 30)] {
        std::this_thread::sleep_for(std::chrono::milliseconds(wait));
        cancel = true;
      });
    }
    GenerateOptions options;
    options.sampler.temperature = 0.0f;
    options.ignore_eos = true;
    options.max_tokens = 8;
    options.cancel = &cancel;
    const auto g = hetero::generate(session, prompt, options);
    if (cancelling) {
      canceller.join();
    }
    HETERO_RETURN_IF_ERROR(g.status());
    ++generations_;
    tokens_ += length + static_cast<int64_t>(g->ids.size());
    if (g->stop == Stop::kCancelled) {
      ++cancelled_;
      return {};
    }
    const auto [known, added] = truth_.try_emplace(length, g->ids);
    if (!added && known->second != g->ids) {
      return internal_error(fmt::format("other tokens than before for the prompt of {}", length));
    }
    return {};
  }

  std::string model_;
  Nanos end_;
  std::mt19937 random_;
  std::vector<Strategy> strategies_;
  Watchdog dog_;
  std::map<int64_t, std::vector<TokenId>> truth_;  // by length of the prompt
  Bytes first_ = 0;
  int64_t generations_ = 0;
  int64_t cancelled_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace
}  // namespace hetero

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "soak MODEL [SECONDS] [SEED] [STRATEGY...]\n");
    return 2;
  }
  if (!std::filesystem::exists(argv[1])) {
    fmt::print(stderr, "soak: skipped: {} is not there\n", argv[1]);
    return 77;
  }
  const auto seconds = std::chrono::seconds(argc > 2 ? std::atoll(argv[2]) : 20);
  const auto seed = static_cast<uint32_t>(argc > 3 ? std::atoll(argv[3]) : 1);
  std::vector<hetero::Strategy> strategies(std::begin(hetero::kStrategies), std::end(hetero::kStrategies));
  if (argc > 4) {
    strategies.clear();
  }
  for (int i = 4; i < argc; ++i) {
    const auto strategy = hetero::strategy_from_name(argv[i]);
    if (!strategy) {
      fmt::print(stderr, "soak: no strategy '{}'\n", argv[i]);
      return 2;
    }
    strategies.push_back(*strategy);
  }
  if (const hetero::Status status = hetero::Soak(argv[1], seconds, seed, std::move(strategies)).run();
      !status.ok()) {
    fmt::print(stderr, "soak: {}\n", status.message());
    return 1;
  }
  return 0;
}
