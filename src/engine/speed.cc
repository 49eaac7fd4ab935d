#include "engine/speed.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

namespace hetero {

std::string SpeedTest::name() const {
  std::string text = prompt > 0 ? fmt::format("pp{}", prompt) : fmt::format("tg{}", decode);
  if (depth > 0) {
    text += fmt::format(" @ d{}", depth);
  }
  return text;
}

Speed summarize(std::vector<double> samples) {
  Speed s;
  if (samples.empty()) {
    return s;
  }
  std::sort(samples.begin(), samples.end());
  const size_t n = samples.size();
  s.median = (samples[(n - 1) / 2] + samples[n / 2]) / 2.0;
  s.mean = std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(n);
  double squares = 0.0;
  for (const double x : samples) {
    squares += (x - s.mean) * (x - s.mean);
  }
  s.stddev = n > 1 ? std::sqrt(squares / static_cast<double>(n - 1)) : 0.0;
  return s;
}

std::vector<TokenId> SpeedMeter::draw(int64_t count) {
  std::uniform_int_distribution<TokenId> any(0, static_cast<TokenId>(engine_.graph().shape.vocabulary - 1));
  std::vector<TokenId> ids(static_cast<size_t>(count));
  std::generate(ids.begin(), ids.end(), [&] { return any(random_); });
  return ids;
}

Status SpeedMeter::warm_up(const SpeedTest& test, const std::atomic<bool>* cancel) {
  SpeedTest shorter = test;
  shorter.decode = std::min<int64_t>(test.decode, 4);
  return sample(shorter, cancel).status();
}

Result<double> SpeedMeter::sample(const SpeedTest& test, const std::atomic<bool>* cancel) {
  if (engine_.selection().strategy == Strategy::kNpuOnline && test.prompt > 0) {
    session_.reset();  // and with it the graphs
  }
  if (session_ == nullptr) {
    HETERO_TRY(session_, engine_.new_session());
  }
  Session& session = *session_;
  session.truncate(test.depth);
  if (const auto missing = test.depth - static_cast<int64_t>(session.tokens().size()); missing > 0) {
    HETERO_RETURN_IF_ERROR(session.feed(draw(missing), cancel));
  }
  const std::vector<TokenId> ids = draw(test.prompt + test.decode);
  const size_t step = test.prompt > 0 ? ids.size() : 1;
  const Nanos begin = now();
  for (size_t i = 0; i < ids.size(); i += step) {
    HETERO_RETURN_IF_ERROR(session.feed(std::span(ids).subspan(i, step), cancel));
  }
  const double seconds = std::chrono::duration<double>(now() - begin).count();
  return static_cast<double>(ids.size()) / std::max(seconds, 1e-9);
}

}  // namespace hetero
