// SPDX-License-Identifier: Apache-2.0
// Processes of a dataflow region in C simulation: each runs on its own stack, all in one thread. A process
// that reads from an empty channel or writes to a full one yields until it can go on. When none can go on,
// the region would stop on the chip too: this deadlock is reported with the channel that each process waits
// for. The order of events is the same in every run.
#ifndef EDGE_MOE_CSIM_PROCESSES_HPP
#define EDGE_MOE_CSIM_PROCESSES_HPP

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "edge_moe_config.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace edge_moe {

// Why a process waits, and a check whether it still must.
struct Wait {
  bool (*over)(const void* channel);
  const void* channel;
  const char* name;
  const char* reason;
};

// Processes of one region; add them, then run them to their ends.
class Processes {
 public:
  Processes() : scheduler_(), current_(nullptr) {}
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  void add(const char* name, std::function<void()> body) {
    processes_.emplace_back(new Process(name, std::move(body)));
  }

  // Throws std::runtime_error with a process's name and the text of its exception, or with what each process
  // waits for if none can go on.
  void run() {
    running() = this;
    std::string failure;
    while (failure.empty() && step(failure)) {
    }
    running() = nullptr;
    if (!failure.empty()) {
      throw std::runtime_error(failure);
    }
  }

  // Called by a process: yield until `wait` is over. Outside a region it does nothing.
  static void give_way(const Wait& wait) {
    Processes* region = running();
    if (region != nullptr) {
      region->current_->wait = wait;
      region->leave(*region->current_, false);
    }
  }

 private:
  // Reserved, taken page by page. The scratch memory and a row's sums of six bytes a channel are on one of them.
  // The address sanitizer does not clean a stack beyond 64 MiB after an exception.
  static constexpr std::size_t STACK_BYTES = (std::size_t{56} << 20) + std::size_t{config::scratch_bytes} +
                                             std::size_t{config::accumulator_rows} * 6 * config::tile_out;

  struct Process {
    Process(const char* title, std::function<void()> work)
        : name(title), body(std::move(work)), wait(), done(false), started(false), context(), stack(nullptr) {
      stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
      if (stack == MAP_FAILED) {
        throw std::runtime_error("no memory for the stack of a simulated process.");
      }
#ifdef __SANITIZE_ADDRESS__
      __asan_unpoison_memory_region(stack, STACK_BYTES);  // the place may be that of an earlier stack
#endif
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() { munmap(stack, STACK_BYTES); }

    bool ready() const { return !done && (wait.over == nullptr || wait.over(wait.channel)); }

    const char* name;
    std::function<void()> body;
    Wait wait;
    bool done;
    bool started;
    std::string failure;
    ucontext_t context;
    void* stack;
    void* fake_stack = nullptr;  // of the address sanitizer
  };

  static Processes*& running() {
    static thread_local Processes* region = nullptr;
    return region;
  }

  // Let every process go on that can. False when all are done; sets `failure` if none can or one failed.
  bool step(std::string& failure) {
    bool moved = false;
    bool left = false;
    for (auto& process : processes_) {
      if (process->ready()) {
        enter(*process);
        moved = true;
        if (!process->failure.empty()) {
          failure = process->failure;
          return false;
        }
      }
      left = left || !process->done;
    }
    if (left && !moved) {
      failure = deadlock();
    }
    return left;
  }

  std::string deadlock() const {
    std::string text = "deadlock:";
    for (const auto& process : processes_) {
      if (!process->done) {
        text += std::string(" ") + process->name + " waits for " + process->wait.reason + " '" +
                process->wait.name + "';";
      }
    }
    text.back() = '.';
    return text;
  }

  static void entry() {
    Processes& region = *running();
    Process& process = *region.current_;
    finish_switch(nullptr, &region.scheduler_stack_, &region.scheduler_size_);
    try {
      process.body();
    } catch (const std::exception& error) {
      process.failure = std::string(process.name) + ": " + error.what();
    }
    process.done = true;
    region.leave(process, true);
  }

  void enter(Process& process) {
    current_ = &process;
    if (!process.started) {
      process.started = true;
      getcontext(&process.context);
      process.context.uc_stack.ss_sp = process.stack;
      process.context.uc_stack.ss_size = STACK_BYTES;
      process.context.uc_link = nullptr;
      makecontext(&process.context, &Processes::entry, 0);
    }
    void* fake_stack = nullptr;
    start_switch(&fake_stack, process.stack, STACK_BYTES);
    swapcontext(&scheduler_, &process.context);
    finish_switch(fake_stack, nullptr, nullptr);
  }

  void leave(Process& process, bool forever) {
    start_switch(forever ? nullptr : &process.fake_stack, scheduler_stack_, scheduler_size_);
    swapcontext(&process.context, &scheduler_);
    finish_switch(process.fake_stack, &scheduler_stack_, &scheduler_size_);
  }

#ifdef __SANITIZE_ADDRESS__
  static void start_switch(void** save, const void* bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(save, bottom, size);
  }
  static void finish_switch(void* save, const void** bottom, std::size_t* size) {
    __sanitizer_finish_switch_fiber(save, bottom, size);
  }
#else
  static void start_switch(void** /*save*/, const void* /*bottom*/, std::size_t /*size*/) {}
  static void finish_switch(void* /*save*/, const void** /*bottom*/, std::size_t* /*size*/) {}
#endif

  std::vector<std::unique_ptr<Process>> processes_;
  ucontext_t scheduler_;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_size_ = 0;
  Process* current_;
};

}  // namespace edge_moe

#endif
