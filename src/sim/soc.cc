#include "sim/soc.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

#include "base/files.h"
#include "base/json_file.h"
#include "sim/soc_data.h"

namespace hetero {
namespace {

const Json* member(const Json& object, const char* name) {
  const auto found = object.is_object() ? object.find(name) : object.end();
  return object.is_object() && found != object.end() ? &*found : nullptr;
}

struct Field {
  const char* name;
  double* value;
  bool needed;
  double least;
};

Status read_fields(const Json& object, const std::string& where, const std::vector<Field>& fields) {
  for (const Field& f : fields) {
    const Json* entry = member(object, f.name);
    if (entry == nullptr && !f.needed) {
      continue;
    }
    const Json* value = entry == nullptr ? nullptr : member(*entry, "value");
    if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>()) ||
        value->get<double>() < f.least || value->get<double>() > 1e12) {
      return malformed(fmt::format("soc: {}.{}: expected {{\"value\": a number of at least {}}}, found {}",
                                   where, f.name, f.least, entry == nullptr ? "nothing" : entry->dump()));
    }
    *f.value = value->get<double>();
  }
  return {};
}

Result<std::string> read_text(const Json& object, const std::string& where, const char* name, bool needed) {
  const Json* entry = member(object, name);
  if (entry == nullptr && !needed) {
    return std::string();
  }
  if (entry == nullptr || !entry->is_string()) {
    return malformed(fmt::format("soc: {}{}: expected a text, found {}", where, name,
                                 entry == nullptr ? "nothing" : entry->dump()));
  }
  return entry->get<std::string>();
}

constexpr double kPositive = 1e-9;

Status read_curve(const Json& object, SocProcessor& p) {
  const Json* curve = member(object, "curve");
  if (curve == nullptr) {
    return {};
  }
  for (const Json& entry : *curve) {
    SocProcessor::CurvePoint point;
    const std::string where = fmt::format("{}.curve[{}]", p.id, p.curve.size());
    HETERO_RETURN_IF_ERROR(read_fields(
        entry, where, {{"rows", &point.rows, true, 1.0}, {"gflops", &point.gflops, true, kPositive}}));
    if (!p.curve.empty() && point.rows <= p.curve.back().rows) {
      return malformed(fmt::format("soc: {}: rows {} after {}, expected ascending rows", where, point.rows,
                                   p.curve.back().rows));
    }
    p.curve.push_back(point);
  }
  if (p.curve.empty()) {
    return malformed(fmt::format("soc: {}.curve: expected at least one point", p.id));
  }
  return {};
}

/// [{"op": "linear", "out": 576, "in": 1536, "times": [[rows, context, us], ...]}, ...]
Status read_operators(const Json& object, SocProcessor& p) {
  const Json* list = member(object, "operators");
  for (size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const std::string where = fmt::format("soc: {}.operators[{}]", p.id, i);
    const Json* const entry = list->is_array() ? &(*list)[i] : nullptr;
    const auto whole = [&](const char* name) {
      const Json* value = entry == nullptr ? nullptr : member(*entry, name);
      return value != nullptr && value->is_number_unsigned() && value->get<uint64_t>() < (1u << 30)
                 ? value->get<int64_t>()
                 : -1;
    };
    SocProcessor::Measured m;
    m.out = whole("out");
    m.in = whole("in");
    const Json* const op = entry == nullptr ? nullptr : member(*entry, "op");
    const Json* const times = entry == nullptr ? nullptr : member(*entry, "times");
    if (m.out < 0 || m.in < 0 || op == nullptr || !op->is_string() || times == nullptr ||
        !times->is_array() || times->empty()) {
      return malformed(where + ": expected op, out, in and times");
    }
    m.op = op->get<std::string>();
    for (const Json& t : *times) {
      const bool numbers =
          t.is_array() && t.size() == 3 && t[0].is_number() && t[1].is_number() && t[2].is_number();
      if (!numbers || !(t[0].get<double>() >= 1.0) || !(t[1].get<double>() >= 0.0) ||
          !(t[2].get<double>() >= 0.0) || t[0].get<double>() > 1e9 || t[1].get<double>() > 1e9 ||
          t[2].get<double>() > 1e12) {
        return malformed(fmt::format("{}.times: expected [rows, context, us], found {}", where, t.dump()));
      }
      m.times.push_back({t[0].get<double>(), t[1].get<double>(), t[2].get<double>()});
    }
    std::stable_sort(m.times.begin(), m.times.end(), [](const auto& a, const auto& b) {
      return std::tie(a.rows, a.context) < std::tie(b.rows, b.context);
    });
    p.operators.push_back(std::move(m));
  }
  return {};
}

Result<SocProcessor> read_processor(const Json& object, const std::string& where) {
  SocProcessor p;
  HETERO_TRY(p.id, read_text(object, where + ".", "id", true));
  HETERO_TRY(p.kind, read_text(object, where + ".", "kind", true));
  HETERO_TRY(p.name, read_text(object, where + ".", "name", true));
  HETERO_TRY(const std::string model, read_text(object, where + ".", "model", true));
  if (p.kind != "cpu" && p.kind != "gpu" && p.kind != "npu") {
    return malformed(fmt::format("soc: {}.kind: expected cpu, gpu or npu, found \"{}\"", where, p.kind));
  }
  if (model != "roofline" && model != "systolic") {
    return malformed(fmt::format("soc: {}.model: expected roofline or systolic, found \"{}\"", where, model));
  }
  p.model = model == "systolic" ? SocModel::kSystolic : SocModel::kRoofline;
  const Json* is_static = member(object, "static_shapes");
  p.static_shapes = is_static != nullptr ? *is_static == true : p.kind == "npu";
  if (const Json* lengths = member(object, "lengths")) {
    for (const Json& length : *lengths) {
      if (!length.is_number_unsigned() || length.get<uint64_t>() < 1 || length.get<uint64_t>() > 65536 ||
          (!p.lengths.empty() && length.get<int64_t>() <= p.lengths.back())) {
        return malformed(fmt::format("soc: {}.lengths: expected ascending numbers from 1 to 65536, found {}",
                                     p.id, lengths->dump()));
      }
      p.lengths.push_back(length.get<int64_t>());
    }
  }
  HETERO_RETURN_IF_ERROR(read_curve(object, p));
  HETERO_RETURN_IF_ERROR(read_operators(object, p));
  const bool roofline = p.model == SocModel::kRoofline && p.curve.empty();
  const bool systolic = p.model == SocModel::kSystolic;
  double ratios = 0.0;
  HETERO_RETURN_IF_ERROR(read_fields(object, p.id,
                                     {{"gbps", &p.gbps, true, kPositive},
                                      {"submit_us", &p.submit_us, true, 0.0},
                                      {"idle_submit_us", &p.idle_submit_us, false, 0.0},
                                      {"finish_us", &p.finish_us, true, 0.0},
                                      {"copy_us", &p.copy_us, false, 0.0},
                                      {"ratios", &ratios, false, 0.0},
                                      {"gflops", &p.gflops, roofline, kPositive},
                                      {"half_rows", &p.half_rows, roofline, 0.0},
                                      {"tile", &p.tile, systolic, 1.0},
                                      {"array_gflops", &p.array_gflops, systolic, kPositive},
                                      {"stream_rows", &p.stream_rows, systolic, 1.0},
                                      {"held_kib", &p.held_kib, systolic, 0.0},
                                      {"load_ns", &p.load_ns, systolic, 0.0},
                                      {"reload_ns", &p.reload_ns, systolic, 0.0},
                                      {"least_columns", &p.least_columns, systolic, 0.0},
                                      {"compile_ms", &p.compile_ms, false, 0.0},
                                      {"compile_us_per_element", &p.compile_us_per_element, false, 0.0},
                                      {"watts", &p.watts, false, 0.0},
                                      {"stall_watts", &p.stall_watts, false, 0.0}}));
  p.ratios = static_cast<int>(std::min(ratios, 16.0));
  return p;
}

/// Calls `visit` with the path of every number.
void walk(const Json& json, const std::string& path,
          const std::function<void(const std::string&, const Json&)>& visit) {
  if (json.is_object() && json.contains("value")) {
    visit(path, json);
    return;
  }
  for (const auto& [key, value] : json.items()) {
    if (value.is_structured()) {
      const std::string* id =
          json.is_array() && value.is_object() && value.contains("id") && value["id"].is_string()
              ? value["id"].get_ptr<const std::string*>()
              : nullptr;
      const std::string name = id != nullptr ? *id : key == "processors" ? "" : key;
      walk(value, path.empty() || name.empty() ? path + name : path + "." + name, visit);
    }
  }
}

/// So that its last point has so many gflops.
Status scale_curve(Json& curve, double gflops) {
  const auto value = [](Json& point) -> Json* {
    Json* entry = point.is_object() && point.contains("gflops") ? &point["gflops"] : nullptr;
    return entry != nullptr && entry->is_object() && entry->contains("value") && (*entry)["value"].is_number()
               ? &(*entry)["value"]
               : nullptr;
  };
  Json* const last = curve.is_array() && !curve.empty() ? value(curve.back()) : nullptr;
  if (last == nullptr || !(last->get<double>() > 0.0)) {
    return malformed("soc: curve: its last point has no gflops");
  }
  const double factor = gflops / last->get<double>();
  for (Json& point : curve) {
    if (Json* const number = value(point)) {
      *number = number->get<double>() * factor;
      point["gflops"]["basis"] = "set by the user";
    }
  }
  return {};
}

}  // namespace

const SocProcessor* Soc::find(const std::string& id) const {
  for (const SocProcessor& p : processors) {
    if (p.id == id) {
      return &p;
    }
  }
  return nullptr;
}

Result<Soc> soc_from_json(const Json& json) {
  Soc soc;
  if (!json.is_object()) {
    return malformed("soc: expected a JSON object");
  }
  HETERO_TRY(soc.name, read_text(json, "", "name", true));
  HETERO_TRY(soc.title, read_text(json, "", "title", true));
  HETERO_TRY(soc.note, read_text(json, "", "note", false));
  const auto part = [&](const char* name) -> const Json& {
    static const Json kNone = Json::object();
    const Json* found = member(json, name);
    return found == nullptr ? kNone : *found;
  };
  HETERO_RETURN_IF_ERROR(read_fields(
      part("dram"), "dram",
      {{"gbps", &soc.dram_gbps, true, kPositive}, {"pj_per_byte", &soc.dram_pj_per_byte, false, 0.0}}));
  HETERO_RETURN_IF_ERROR(read_fields(part("chip"), "chip",
                                     {{"activation_bytes", &soc.activation_bytes, true, kPositive},
                                      {"w4_bits", &soc.w4_bits, false, 0.0},
                                      {"profile_alone", &soc.profile_alone, false, 0.0},
                                      {"base_watts", &soc.base_watts, false, 0.0}}));
  HETERO_RETURN_IF_ERROR(read_fields(part("control"), "control",
                                     {{"sleep_grain_us", &soc.sleep_grain_us, true, kPositive},
                                      {"poll_us", &soc.poll_us, true, kPositive},
                                      {"watts", &soc.control_watts, false, 0.0}}));
  SocGame& g = soc.game;
  const bool game = json.contains("game");
  HETERO_RETURN_IF_ERROR(read_fields(part("game"), "game",
                                     {{"fps", &g.fps, game, kPositive},
                                      {"frame_ms", &g.frame_ms, game, kPositive},
                                      {"batches", &g.batches, game, 1.0},
                                      {"queue_depth", &g.queue_depth, game, 1.0},
                                      {"burst", &g.burst, game, 1.0}}));
  const Json& list = part("processors");
  if (!list.is_array() || list.empty()) {
    return malformed("soc: processors: expected a list of at least one");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    HETERO_TRY(SocProcessor p, read_processor(list[i], fmt::format("processors[{}]", i)));
    if (soc.find(p.id) != nullptr) {
      return malformed(fmt::format("soc: processors[{}].id: \"{}\" is there twice", i, p.id));
    }
    soc.processors.push_back(std::move(p));
  }
  return soc;
}

std::vector<SocSource> soc_sources(const Json& json) {
  std::vector<SocSource> out;
  const auto text = [](const Json& entry, const char* name) {
    const Json* found = member(entry, name);
    return found != nullptr && found->is_string() ? found->get<std::string>() : std::string();
  };
  walk(json, "", [&](const std::string& path, const Json& entry) {
    out.push_back({path, entry["value"].is_number() ? entry["value"].get<double>() : 0.0, text(entry, "unit"),
                   text(entry, "source"), text(entry, "tag"), text(entry, "basis")});
  });
  return out;
}

Status soc_set(Json& json, const std::string& assignment) {
  const size_t equals = assignment.find('=');
  const size_t dot = assignment.find('.');
  const auto wrong = [&](const std::string& why) {
    return invalid_argument(fmt::format("--set {}: {}", assignment, why));
  };
  if (equals == std::string::npos || dot == std::string::npos || dot > equals) {
    return wrong("expected PART.NUMBER=VALUE, for example npu.tflops=34 or dram.gbps=77");
  }
  const std::string part = assignment.substr(0, dot);
  std::string name = assignment.substr(dot + 1, equals - dot - 1);
  double value = 0.0;
  size_t used = 0;
  try {
    value = std::stod(assignment.substr(equals + 1), &used);
  } catch (const std::exception&) {
  }
  if (used == 0 || equals + 1 + used != assignment.size()) {
    return wrong("expected a number behind the equals sign");
  }
  std::vector<Json*> parts;
  if (json.contains(part) && json[part].is_object()) {
    parts.push_back(&json[part]);
  }
  for (Json& p : json["processors"]) {
    if (p.value("id", "") == part || p.value("kind", "") == part) {
      parts.push_back(&p);
    }
  }
  if (parts.empty()) {
    return wrong(fmt::format(
        "there is no part \"{}\" (dram, chip, control, game, or a processor's id or kind)", part));
  }
  for (Json* p : parts) {
    std::string key = name;
    double number = value;
    if (key == "tflops") {
      key = p->contains("array_gflops") ? "array_gflops" : "gflops";
      number *= 1000.0;
    }
    if (key == "gflops" && p->contains("curve")) {
      HETERO_RETURN_IF_ERROR(scale_curve((*p)["curve"], number));
      continue;
    }
    if (!p->contains(key) || !(*p)[key].is_object() || !(*p)[key].contains("value")) {
      std::vector<std::string> known;
      for (const auto& [k, v] : p->items()) {
        if (v.is_object() && v.contains("value")) {
          known.push_back(k);
        }
      }
      return wrong(fmt::format("\"{}\" has {}", part, fmt::join(known, ", ")));
    }
    (*p)[key]["value"] = number;
    (*p)[key]["basis"] = "set by the user";
  }
  return {};
}

std::vector<std::string> soc_names() {
  std::vector<std::string> names;
  for (const SocData& data : soc_data()) {
    names.emplace_back(data.name);
  }
  return names;
}

Result<Json> soc_json(const std::string& name_or_path) {
  for (const SocData& data : soc_data()) {
    if (name_or_path == data.name) {
      return parse_json(data.json, name_or_path);
    }
  }
  auto json = read_json_file(name_or_path);
  if (json.status().code() == Code::kNotFound) {
    return not_found(fmt::format("--soc {}: neither a file nor one of {}", shortened(name_or_path, 300),
                                 fmt::join(soc_names(), ", ")));
  }
  return json;
}

Result<Soc> load_soc(const std::string& name_or_path, const std::vector<std::string>& set) {
  HETERO_TRY(Json json, soc_json(name_or_path));
  for (const std::string& assignment : set) {
    HETERO_RETURN_IF_ERROR(soc_set(json, assignment));
  }
  auto soc = soc_from_json(json);
  return soc.ok() ? std::move(soc) : soc.status().with_prefix(name_or_path);
}

}  // namespace hetero
