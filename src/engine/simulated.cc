#include "engine/simulated.h"

#include <fmt/format.h>

#include <algorithm>

#include "cpu/cpu.h"
#include "sim/sim_processor.h"

namespace hetero {

Result<std::vector<FoundProcessor>> find_simulated(const std::string& name_or_path) {
  HETERO_TRY(Soc soc, load_soc(name_or_path));
  std::stable_sort(
      soc.processors.begin(), soc.processors.end(),
      [](const SocProcessor& a, const SocProcessor& b) { return a.kind == "cpu" && b.kind != "cpu"; });
  if (soc.processors[0].kind != "cpu") {
    return unsupported(fmt::format("--soc {}: describes no CPU, which an engine needs", name_or_path));
  }
  auto world = std::make_shared<World>(std::move(soc));
  std::vector<FoundProcessor> found;
  for (size_t i = 0; i < world->soc().processors.size(); ++i) {
    FoundProcessor p;
    p.info = sim_info(world->soc(), i);
    p.open = [world, i](const ProcessorInfo& info,
                        const OpenOptions& options) -> Result<std::unique_ptr<Processor>> {
      const FoundProcessor cpu = find_cpu();
      OpenOptions real;  // the machine's own threads; the simulated ones have their own idea of time
      real.threads = options.threads;
      HETERO_TRY(std::unique_ptr<Processor> values, cpu.open(cpu.info, real));
      return make_sim_processor(world, i, info, std::move(values));
    };
    found.push_back(std::move(p));
  }
  return found;
}

}  // namespace hetero
