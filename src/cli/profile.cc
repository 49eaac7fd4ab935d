// hetero profile: measure how long a model's operators take on each processor.
#include <fmt/format.h>

#include "cli/commands.h"
#include "engine/planning.h"
#include "sim/soc.h"

namespace hetero {
namespace {

struct ProfileCommand {
  ModelOptions model;
  std::string output;
  double seconds = 60.0;
  bool thorough = false;
  bool fresh = false;
  bool json = false;
};

Status run(const ProfileCommand& o) {
  if (!o.model.soc.empty() && o.output.empty()) {
    return invalid_argument(
        "profile --soc: profiles of simulated chips are not kept in the cache, give -o FILE");
  }
  HETERO_TRY(const OpenedModel opened, open_model(o.model));
  Engine& engine = *opened.engine;
  const std::vector<OpenProcessor> processors = engine.open_list();
  const std::string cache = profile_cache_file(engine.graph(), processors, engine.options().cache_dir);
  const std::string file = o.output.empty() ? cache : o.output;
  // What an earlier call measured and was cut off in.
  std::optional<Profile> known;
  for (const std::string& place : {file, cache}) {
    if (auto read = read_profile(place); !o.fresh && !known && !place.empty() && read.ok() &&
                                         profile_fits(*read, engine.graph(), processors).ok()) {
      known = std::move(read).value();
    }
  }
  Progress progress;
  ProfilerOptions options;
  options.time_limit = std::chrono::milliseconds(static_cast<int64_t>(o.seconds * 1000.0));
  options.context = std::min<int64_t>(engine.context(), 2048);
  if (o.thorough) {
    options.rounds = 9;
    options.time_limit = std::chrono::hours(1);
    options.lengths = {1, 32, 64, 96, 128, 192, 256, 384, 512};
  }
  if (!o.model.soc.empty()) {
    HETERO_TRY(const Soc soc, load_soc(o.model.soc));
    options.alone = soc.profile_alone > 0.0;
  }
  options.cancel = &interrupted();
  options.progress = [&](const std::string& what, int done, int total) { progress.show(what, done, total); };
  HETERO_TRY(const Profile profile,
             measure_profile(engine.graph(), processors, options, file, known ? &*known : nullptr));
  progress.clear();
  if (!cache.empty() && cache != file) {
    HETERO_RETURN_IF_ERROR(write_profile(profile, cache));
  }
  if (o.json) {
    print_json(to_json(profile));
  } else {
    for (const ProfiledProcessor& p : profile.processors) {
      size_t points = 0;
      for (const Series& s : p.series) {
        points += s.points.size();
      }
      fmt::print("{:<6} {:<10} {}{}: {} kinds of work, {} points, {:.1f} us for a submission\n", p.id,
                 p.provider, p.name, p.stand_in ? " (stand-in)" : "", p.series.size(), points,
                 static_cast<double>(p.submit.count()) / 1e3);
    }
    for (const Handoff& h : profile.handoffs) {
      fmt::print("{} to {}, {}: {:.1f} us (+- {:.1f})\n", h.from, h.to, h.sync,
                 static_cast<double>(h.median.count()) / 1e3, static_cast<double>(h.spread.count()) / 1e3);
    }
    for (const Together& t : profile.together) {
      std::string text;
      for (const Share& s : t.processors) {
        text += fmt::format("{}{} {:.1f} GB/s, {:.2f} times as long", text.empty() ? "" : "; ", s.id, s.gbps,
                            s.slowdown);
      }
      fmt::print("{}: {}\n", t.processors.size() > 1 ? "together" : "alone", text);
    }
    fmt::print("{}{}\n", file.empty() ? "not kept: there is no cache folder" : "written to " + file,
               profile.complete ? "" : "; cut off, the same call again goes on");
  }
  return interrupted() ? cancelled("stopped") : Status();
}

}  // namespace

Command register_profile(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("profile", "Measure how long the model's operators take on each processor");
  auto o = std::make_shared<ProfileCommand>();
  add_model_options(*command, o->model);
  command->add_option("-o,--output", o->output,
                      "Write the profile to FILE (default: the cache, where run finds it)");
  command->add_option("--time", o->seconds, "Most seconds to measure for")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  command->add_flag("--thorough", o->thorough, "More lengths and samples, as long as it takes");
  command->add_flag("--fresh", o->fresh, "Do not go on from what an earlier call measured");
  command->add_flag("--json", o->json, "Print the profile");
  command->footer(
      "The profile holds for the processors that --strategy and --processors choose, as they are\n"
      "confined by --threads. \"run\" with the same options plans by it. Ctrl-C keeps what is there.\n"
      "Examples:\n"
      "  hetero profile -m model.gguf --strategy tensor\n"
      "  hetero profile -m model.gguf --processors cpu,gpu0 -o p.json --thorough");
  return [o] { return run(*o); };
}

}  // namespace hetero
