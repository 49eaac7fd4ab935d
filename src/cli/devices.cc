#include <fmt/format.h>
#include <fmt/ranges.h>

#include "cli/commands.h"

namespace hetero {

Command register_devices(CLI::App& app) {
  CLI::App* command = app.add_subcommand("devices", "List the processors of this machine");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  command->footer("Example:\n  hetero devices\nA stand-in is a CPU that plays a GPU or an NPU through the same interface.");
  return [json]() -> Status {
    Progress progress(!*json);
    progress.show("looking for processors", 0, 0);
    const std::vector<FoundProcessor> found = find_processors();
    progress.clear();
    if (*json) {
      auto list = nlohmann::ordered_json::array();
      for (const FoundProcessor& p : found) {
        list.push_back(info_json(p.info));
      }
      print_json({{"processors", list}});
      return {};
    }
    for (const FoundProcessor& p : found) {
      fmt::print("{:<6} {}{}\n", p.info.id, p.info.name, p.info.stand_in ? " (stand-in)" : "");
      fmt::print("       {}{}{}, {:.1f} GiB{}{}{}\n", p.info.provider, p.info.driver.empty() ? "" : " ", p.info.driver,
                 static_cast<double>(p.info.memory_bytes) / (1 << 30), p.info.unified_memory ? ", unified memory" : "",
                 p.info.features.empty() ? "" : ", ", fmt::join(p.info.features, " "));
    }
    return {};
  };
}

}  // namespace hetero
