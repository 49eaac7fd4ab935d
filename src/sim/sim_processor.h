// Processors of a simulated chip, behind the ordinary interface. Time passes in their World; what
// they compute is computed by another processor, or, where the graph's weights have no data, not at
// all ("dry": a model of any size without its file).
//
// Results appear in memory when the work ends in virtual time, so a reader that did not wait reads
// something old, as it would on a real chip. All calls, timelines' included, from one thread.
#pragma once

#include <memory>
#include <vector>

#include "processor/processor.h"
#include "sim/world.h"

namespace hetero {

/// Processor `index` of the world's chip. `values`: who computes; coherent, and outlives the
/// processor; nullptr: nobody, all work is dry. Systolic arrays take their operands in the order that a slice
/// has (OpSlice::exchanged).
std::unique_ptr<Processor> make_sim_processor(std::shared_ptr<World> world, size_t index,
                                              const ProcessorInfo& info, std::shared_ptr<Processor> values);

/// What a simulated processor says of itself; `id` as in the chip's file.
ProcessorInfo sim_info(const Soc& soc, size_t index);

}  // namespace hetero
