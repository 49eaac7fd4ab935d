// The angles of rotary position embedding, by the settings of a model file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "gguf/dequantize.h"
#include "graph/builder.h"

namespace hetero {
namespace {

/// YaRN (Peng et al., arXiv 2309.00071, section 3.2): slow rotations are interpolated by
/// `factor`, fast ones kept, with a linear ramp between. beta: rotations over the trained context
/// where the ramp begins and ends.
void apply_yarn(RopeTable& table, int dims, double base, double factor, double trained, double beta_fast,
                double beta_slow) {
  const auto dim_of = [&](double rotations) {
    return dims * std::log(trained / (rotations * 2.0 * M_PI)) / (2.0 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(dim_of(beta_fast)));
  const double high = std::min(dims - 1.0, std::ceil(dim_of(beta_slow)));
  for (size_t i = 0; i < table.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
    table.inv_freq[i] *= (1.0 - ramp) + ramp / factor;
  }
  table.magnitude = static_cast<float>(1.0 + 0.1 * std::log(factor));
}

}  // namespace

ValueId GraphBuilder::rope_table(int rotary_dims) {
  const double base = real("rope.freq_base", 1.0, 1e12, 10000.0);
  const double scale = real("rope.scaling.factor", 1e-6, 1e6, real("rope.scale_linear", 1e-6, 1e6, 1.0));
  RopeTable table;
  for (int i = 0; i < rotary_dims / 2; ++i) {
    table.inv_freq.push_back(std::pow(base, -2.0 * i / rotary_dims));
  }
  // One divisor for each pair of dimensions (Llama 3.1 and later).
  if (const WeightId factors = has("rope_freqs.weight") ? vector("rope_freqs.weight", rotary_dims / 2) : -1;
      factors >= 0) {
    const Weight& w = graph_.weight(factors);
    std::vector<float> divisors(static_cast<size_t>(w.cols));
    dequantize(w.dtype, w.data, w.cols, divisors.data());
    for (size_t i = 0; i < divisors.size(); ++i) {
      if (!(divisors[i] > 0.0f) || !std::isfinite(divisors[i])) {
        fail(malformed(fmt::format("{}: rope_freqs.weight[{}] is {}, expected a positive number", file_.path(), i,
                                   divisors[i])));
      }
      table.inv_freq[i] /= double{divisors[i]};
    }
  }
  std::string type = "none";
  if (file_.find(key("rope.scaling.type")) != nullptr) {
    const auto found = file_.get_string(key("rope.scaling.type"));
    if (!found.ok()) {
      fail(found.status());
    } else {
      type = *found;
    }
  } else if (scale != 1.0) {
    type = "linear";
  }
  if (type == "linear") {
    for (double& f : table.inv_freq) {
      f /= scale;
    }
  } else if (type == "yarn") {
    const auto trained = static_cast<double>(integer("rope.scaling.original_context_length", 1, int64_t{1} << 31,
                                                     graph_.shape.context));
    apply_yarn(table, rotary_dims, base, scale, trained, real("rope.scaling.yarn_beta_fast", 0.001, 1e6, 32.0),
               real("rope.scaling.yarn_beta_slow", 0.001, 1e6, 1.0));
  } else if (type != "none") {
    fail(unsupported(fmt::format("{}: {} is \"{}\"; none, linear and yarn are known", file_.path(),
                                 key("rope.scaling.type"), type)));
  }
  const ValueId out = value("rope_table", rotary_dims);
  append({"rope_table", -1, std::move(table), {}, {out}, {}, {}});
  return out;
}

}  // namespace hetero
