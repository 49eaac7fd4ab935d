#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>
#include <tuple>

#include "profile/profile.h"

namespace hetero {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "heteroinfer-profile-1";

Json work_json(const Work& w) {
  return {{"kind", w.kind}, {"dtype", w.dtype}, {"n", w.n}, {"k", w.k}};
}

/// A value of the document and where it stands, for messages.
class Place {
 public:
  Place(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {}

  [[noreturn]] void fail(const std::string& expected) const {
    std::string found = json_->dump(-1, ' ', true, Json::error_handler_t::replace);
    if (found.size() > 60) {
      found = found.substr(0, 57) + "...";
    }
    throw std::invalid_argument(fmt::format("profile: {}: expected {}, found {}", path_, expected, found));
  }

  Place at(const char* key) const {
    if (!json_->is_object()) {
      fail("an object");
    }
    const std::string path = path_.empty() ? key : path_ + "." + key;
    const auto found = json_->find(key);
    if (found == json_->end()) {
      throw std::invalid_argument(fmt::format("profile: {} is missing", path));
    }
    return {*found, path};
  }
  bool has(const char* key) const { return json_->is_object() && json_->contains(key); }

  template <class T, class F>
  std::vector<T> list(F read) const {
    if (!json_->is_array()) {
      fail("a list");
    }
    std::vector<T> items;
    for (size_t i = 0; i < json_->size(); ++i) {
      items.push_back(read(Place((*json_)[i], fmt::format("{}[{}]", path_, i))));
    }
    return items;
  }

  int64_t integer(int64_t low, int64_t high) const {
    const std::string expected = fmt::format("a whole number from {} to {}", low, high);
    if (!json_->is_number_integer() ||
        (json_->is_number_unsigned() && json_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) {
      fail(expected);
    }
    const auto n = json_->get<int64_t>();
    if (n < low || n > high) {
      fail(expected);
    }
    return n;
  }
  int64_t count(int64_t low = 0) const { return integer(low, int64_t{1} << 40); }
  Nanos nanos() const { return Nanos(integer(0, int64_t{1} << 60)); }
  double number(double low) const {
    const double x = json_->is_number() ? json_->get<double>() : std::nan("");
    if (!(x >= low && x <= 1e12)) {
      fail(fmt::format("a number of at least {}", low));
    }
    return x;
  }
  bool boolean() const {
    if (!json_->is_boolean()) {
      fail("true or false");
    }
    return json_->get<bool>();
  }
  std::string text() const {
    if (!json_->is_string()) {
      fail("a text");
    }
    return json_->get<std::string>();
  }

 private:
  const Json* json_;
  std::string path_;
};

Work read_work(const Place& p) {
  return {p.at("kind").text(), p.at("dtype").text(), p.at("n").count(1), p.at("k").count(0)};
}

Series read_series(const Place& p) {
  Series series;
  series.work = read_work(p);
  series.points = p.at("points").list<Point>([](const Place& at) {
    Point point;
    point.tokens = at.at("tokens").count(1);
    point.context = at.has("context") ? at.at("context").count() : 0;
    point.exchanged = at.has("exchanged") && at.at("exchanged").boolean();
    point.median = at.at("median_ns").nanos();
    point.spread = at.has("spread_ns") ? at.at("spread_ns").nanos() : Nanos{};
    point.samples = at.has("samples") ? static_cast<int>(at.at("samples").integer(0, 1 << 30)) : 1;
    return point;
  });
  std::sort(series.points.begin(), series.points.end(), [](const Point& a, const Point& b) {
    return std::tie(a.exchanged, a.tokens, a.context) < std::tie(b.exchanged, b.tokens, b.context);
  });
  return series;
}

ProfiledProcessor read_processor(const Place& p) {
  ProfiledProcessor out;
  out.id = p.at("id").text();
  out.kind = p.at("kind").text();
  const auto optional_text = [&](const char* key) { return p.has(key) ? p.at(key).text() : std::string(); };
  out.name = optional_text("name");
  out.provider = optional_text("provider");
  out.driver = optional_text("driver");
  out.setting = optional_text("setting");
  out.stand_in = p.has("stand_in") && p.at("stand_in").boolean();
  out.static_shapes = p.at("static_shapes").boolean();
  out.copies_weights = p.has("copies_weights") && p.at("copies_weights").boolean();
  out.copy_gbps = p.has("copy_gbps") ? p.at("copy_gbps").number(0.0) : 0.0;
  out.lengths = p.at("lengths").list<int64_t>([](const Place& at) { return at.count(1); });
  std::sort(out.lengths.begin(), out.lengths.end());
  out.grid = p.at("grid").count(1);
  out.ratios = p.has("ratios") ? static_cast<int>(p.at("ratios").integer(0, 16)) : 0;
  out.submit = p.at("submit_ns").nanos();
  if (p.has("watts")) {
    out.watts = p.at("watts").number(0.0);
  }
  out.series = p.at("series").list<Series>(read_series);
  if (p.has("compile")) {
    out.compile_times = p.at("compile").list<CompileTime>([](const Place& at) {
      return CompileTime{read_work(at), at.at("tokens").count(1), at.at("time_ns").nanos()};
    });
  }
  return out;
}

int read_visits(const Place& p) {
  return p.has("visits") ? static_cast<int>(std::min<int64_t>(p.at("visits").count(1), 1 << 20)) : 1;
}

Handoff read_handoff(const Place& p) {
  return {p.at("from").text(),
          p.at("to").text(),
          p.at("sync").text(),
          p.at("median_ns").nanos(),
          p.has("spread_ns") ? p.at("spread_ns").nanos() : Nanos{},
          read_visits(p)};
}

Together read_together(const Place& p) {
  Together t;
  t.processors = p.list<Share>([](const Place& at) {
    return Share{at.at("id").text(), at.at("gbps").number(0.0),
                 at.has("slowdown") ? at.at("slowdown").number(0.0) : 1.0, read_visits(at)};
  });
  std::sort(t.processors.begin(), t.processors.end(),
            [](const Share& a, const Share& b) { return a.id < b.id; });
  return t;
}

/// Ids are distinct, and nothing names a processor that is not there.
Status check_ids(const Profile& profile) {
  std::set<std::string> ids;
  for (const ProfiledProcessor& p : profile.processors) {
    if (!ids.insert(p.id).second) {
      return malformed(fmt::format("profile: processors: \"{}\" is there twice", p.id));
    }
  }
  const auto known = [&](const char* where, const std::string& id) {
    return ids.contains(id)
               ? Status()
               : malformed(fmt::format("profile: {}: \"{}\" is not one of its processors", where, id));
  };
  for (const Handoff& h : profile.handoffs) {
    HETERO_RETURN_IF_ERROR(known("handoffs", h.from));
    HETERO_RETURN_IF_ERROR(h.to == kHost ? Status() : known("handoffs", h.to));
  }
  for (const Together& t : profile.together) {
    for (const Share& s : t.processors) {
      HETERO_RETURN_IF_ERROR(known("together", s.id));
    }
  }
  return {};
}

}  // namespace

nlohmann::ordered_json to_json(const Profile& profile) {
  Json json;
  json["format"] = kFormat;
  const ProfileIdentity& who = profile.identity;
  json["identity"] = {
      {"machine", who.machine}, {"model", who.model}, {"date", who.date}, {"simulated", who.simulated}};
  json["complete"] = profile.complete;
  Json& processors = json["processors"] = Json::array();
  for (const ProfiledProcessor& p : profile.processors) {
    Json out = {{"id", p.id},
                {"kind", p.kind},
                {"name", p.name},
                {"provider", p.provider},
                {"driver", p.driver},
                {"stand_in", p.stand_in},
                {"setting", p.setting},
                {"static_shapes", p.static_shapes},
                {"copies_weights", p.copies_weights},
                {"copy_gbps", p.copy_gbps},
                {"lengths", p.lengths},
                {"grid", p.grid},
                {"ratios", p.ratios},
                {"submit_ns", p.submit.count()}};
    if (p.watts) {
      out["watts"] = *p.watts;
    }
    Json& series = out["series"] = Json::array();
    for (const Series& s : p.series) {
      Json one = work_json(s.work);
      Json& points = one["points"] = Json::array();
      for (const Point& point : s.points) {
        Json at = {{"tokens", point.tokens}};
        if (point.context != 0) {
          at["context"] = point.context;
        }
        if (point.exchanged) {
          at["exchanged"] = true;
        }
        at["median_ns"] = point.median.count();
        at["spread_ns"] = point.spread.count();
        at["samples"] = point.samples;
        points.push_back(std::move(at));
      }
      series.push_back(std::move(one));
    }
    Json& compile = out["compile"] = Json::array();
    for (const CompileTime& c : p.compile_times) {
      Json one = work_json(c.work);
      one["tokens"] = c.tokens;
      one["time_ns"] = c.time.count();
      compile.push_back(std::move(one));
    }
    processors.push_back(std::move(out));
  }
  Json& handoffs = json["handoffs"] = Json::array();
  for (const Handoff& h : profile.handoffs) {
    handoffs.push_back({{"from", h.from},
                        {"to", h.to},
                        {"sync", h.sync},
                        {"median_ns", h.median.count()},
                        {"spread_ns", h.spread.count()},
                        {"visits", h.visits}});
  }
  Json& together = json["together"] = Json::array();
  for (const Together& t : profile.together) {
    Json set = Json::array();
    for (const Share& s : t.processors) {
      set.push_back({{"id", s.id}, {"gbps", s.gbps}, {"slowdown", s.slowdown}, {"visits", s.visits}});
    }
    together.push_back(std::move(set));
  }
  return json;
}

Result<Profile> profile_from_json(const nlohmann::ordered_json& json) {
  Profile profile;
  try {
    const Place root(json, "");
    if (const std::string format = root.at("format").text(); format != kFormat) {
      return malformed(fmt::format("profile: format: expected \"{}\", found \"{}\"", kFormat, format));
    }
    const Place who = root.at("identity");
    profile.identity = {who.at("machine").text(), who.at("model").text(), who.at("date").text(),
                        who.at("simulated").boolean()};
    profile.complete = !root.has("complete") || root.at("complete").boolean();
    profile.processors = root.at("processors").list<ProfiledProcessor>(read_processor);
    profile.handoffs = root.at("handoffs").list<Handoff>(read_handoff);
    profile.together = root.at("together").list<Together>(read_together);
  } catch (const std::exception& e) {  // of Place, and of the JSON library
    return malformed(e.what());
  }
  HETERO_RETURN_IF_ERROR(check_ids(profile));
  return profile;
}

}  // namespace hetero
