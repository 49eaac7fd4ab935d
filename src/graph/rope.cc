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
/// where the ramp begins and ends. `share` of the fast ones' way back is taken (1: all of it).
void apply_yarn(RopeTable& table, int dims, double base, double factor, double trained, double beta_fast,
                double beta_slow, double share) {
  const auto dim_of = [&](double rotations) {
    return dims * std::log(trained / (rotations * 2.0 * M_PI)) / (2.0 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(dim_of(beta_fast)));
  const double high = std::min(dims - 1.0, std::ceil(dim_of(beta_slow)));
  for (size_t i = 0; i < table.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
    const double kept = share * (1.0 - ramp);
    table.inv_freq[i] *= kept + (1.0 - kept) / factor;
  }
}

RopeTable unscaled(int rotary_dims, double base) {
  RopeTable table;
  for (int i = 0; i < rotary_dims / 2; ++i) {
    table.inv_freq.push_back(std::pow(base, -2.0 * i / rotary_dims));
  }
  return table;
}

}  // namespace

/// A tensor of positive divisors, one for each pair of rotated dimensions.
std::vector<double> GraphBuilder::factors(const std::string& name, int count) {
  std::vector<float> values(static_cast<size_t>(count), 1.0f);
  if (const WeightId id = vector(name, count); id >= 0) {
    const Weight& w = graph_.weight(id);
    dequantize(w.dtype, w.data, w.cols, values.data());
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] > 0.0f) || !std::isfinite(values[i])) {
      fail(malformed(
          fmt::format("{}: {}[{}] is {}, expected a positive number", file_.path(), name, i, values[i])));
    }
  }
  return {values.begin(), values.end()};
}

ValueId GraphBuilder::plain_rope_table(const std::string& name, int rotary_dims, double base) {
  const ValueId out = value(name, rotary_dims);
  append({name, -1, unscaled(rotary_dims, base), {}, {out}, {}, {}});
  return out;
}

ValueId GraphBuilder::rope_table(int rotary_dims) {
  const double base = real("rope.freq_base", 1.0, 1e12, 10000.0);
  const double scale = real("rope.scaling.factor", 1e-6, 1e6, real("rope.scale_linear", 1e-6, 1e6, 1.0));
  RopeTable table = unscaled(rotary_dims, base);
  const auto divide = [&](const std::vector<double>& by) {
    for (size_t i = 0; i < by.size(); ++i) {
      table.inv_freq[i] /= by[i];
    }
  };
  if (has("rope_freqs.weight")) {  // Llama 3.1 and later
    divide(factors("rope_freqs.weight", rotary_dims / 2));
  }
  std::string type = "none";
  if (file_.find(key("rope.scaling.type")) != nullptr) {
    const auto found = file_.get_string(key("rope.scaling.type"));
    if (!found.ok()) {
      fail(found.status());
    } else {
      type = *found;
    }
  } else if (has("rope_factors_long.weight") || has("rope_factors_short.weight")) {
    type = "longrope";
  } else if (scale != 1.0) {
    type = "linear";
  }
  double magnitude = real("rope.scaling.attn_factor", 1e-6, 1e6, 1.0);
  const auto original = [&](std::optional<int64_t> fallback) {
    return integer("rope.scaling.original_context_length", 1, int64_t{1} << 31, fallback);
  };
  if (type == "linear") {
    for (double& f : table.inv_freq) {
      f /= scale;
    }
  } else if (type == "yarn") {
    apply_yarn(table, rotary_dims, base, scale, static_cast<double>(original(graph_.shape.context)),
               real("rope.scaling.yarn_beta_fast", 0.001, 1e6, 32.0),
               real("rope.scaling.yarn_beta_slow", 0.001, 1e6, 1.0),
               real("rope.scaling.yarn_ext_factor", 0.0, 1.0, 1.0));
    magnitude *= real("rope.scaling.yarn_attn_factor", 1e-6, 1e6, 1.0 + 0.1 * std::log(std::max(scale, 1.0)));
  } else if (type == "longrope" || type == "su") {
    // LongRoPE (Ding et al., arXiv 2402.13753): factors for contexts up to the one that the model was
    // first trained for, and others beyond. Keys in the cache keep their rotation, so a session has
    // the one or the other from its beginning, by the size of its context.
    const int64_t first = original({});
    const auto longer = factors("rope_factors_long.weight", rotary_dims / 2);
    const auto shorter = factors("rope_factors_short.weight", rotary_dims / 2);
    divide(context_ > first ? longer : shorter);
    graph_.shape.default_context = std::min(graph_.shape.default_context, first);
  } else if (type != "none") {
    fail(unsupported(fmt::format("{}: {} is \"{}\"; none, linear, yarn and longrope are known", file_.path(),
                                 key("rope.scaling.type"), type)));
  }
  table.magnitude = static_cast<float>(magnitude);
  const ValueId out = value("rope_table", rotary_dims);
  append({"rope_table", -1, std::move(table), {}, {out}, {}, {}});
  return out;
}

}  // namespace hetero
