# SPDX-License-Identifier: Apache-2.0
# Vitis HLS, included by the Makefile. OP=softmax selects an operator of ops/ instead of the accelerator.
#   make csynth                  C++ to Verilog
#   make rtl                     collect the Verilog; check its ports and register map
#   make cosim                   a small recorded program through the Verilog; BUNDLE=... TASK=... for another
#   make export                  the Verilog as IP for Vivado
#   make report                  resources, clock and slow loops, as table and JSON; ESTIMATE=file.json for another estimate
# Results are in build/hls/ACCELERATOR/vendor/TOP.

ACCELERATOR_TOP := edge_moe_accelerator
TOP = $(or $(OP),$(ACCELERATOR_TOP))
VENDOR = $(BUILD)/vendor/$(TOP)
WORK = $(VENDOR)/work

# The tool: vitis_hls (to 2024.1), or v++ and vitis-run (from 2023.2 on). HLS_TOOL=... chooses.
HLS_TOOL ?= $(if $(shell command -v vitis_hls 2>/dev/null),vitis_hls,v++)
NO_HLS := Vitis HLS was not found on PATH (vitis_hls, or v++ with vitis-run): \
  install AMD Vitis 2022.2 or later and source its settings64.sh
NEED_HLS = case "$(HLS_TOOL)" in vitis_hls) programs=vitis_hls;; v++) programs="v++ vitis-run";; \
  *) echo "HLS_TOOL=$(HLS_TOOL) is neither vitis_hls nor v++"; exit 1;; esac; \
  for program in $$programs; do command -v $$program >/dev/null || { echo "$(NO_HLS)"; exit 1; }; done

# Steps of each tool, started in $(WORK), and the places of their results.
RUN_vitis_hls = vitis_hls -f $(call quote,$(abspath tcl)/$(1).tcl)
RUN_v++ = $(V++_$(1)) --config hls_config.cfg --work_dir component
V++_csynth := v++ -c --mode hls
V++_cosim := vitis-run --mode hls --cosim
V++_export := vitis-run --mode hls --package
SOLUTION_vitis_hls := project/solution
SOLUTION_v++ := component/hls
SOLUTION = $(WORK)/$(SOLUTION_$(HLS_TOOL))
RUN = cd $(WORK) && $(call RUN_$(HLS_TOOL),$(1))

MODULE = PYTHONPATH=../model:../host $(RUN_PYTHON) -m edge_moe.vendor
DESIGN = $(MODULE).tcl --accelerator $(CHOSEN) --top $(TOP) --hls . --generated $(GENERATED)
DESCRIBE = $(DESIGN) --out $(WORK)
# A folder of results appears whole or not at all: $(call KEEP,name,commands that fill $$new)
KEEP = new=$(VENDOR)/.$(1) && rm -rf $$new && mkdir -p $$new && $(2) && rm -rf $(VENDOR)/$(1) \
  && mv $$new $(VENDOR)/$(1)

.PHONY: csynth cosim needs-test-bench export rtl report

# Synthesis takes long: it is repeated when the contents of its inputs change, not their times.
INPUTS = $(BUILD)/vendor_inputs.sha256
VENDOR_SOURCES := $(wildcard include/edge_moe/*.hpp include/edge_moe/*/*.hpp include/edge_moe/*/*/*.hpp) \
  $(wildcard src/*.cpp ops/*.cpp ops/*.hpp tcl/*.tcl) \
  $(addprefix ../model/edge_moe/vendor/,tcl.py interface.py)
$(INPUTS): $(VENDOR_SOURCES) $(HEADERS) FORCE
	@cat $(VENDOR_SOURCES) $(HEADERS) $(wildcard $(GENERATED)/edge_moe_board.json) | sha256sum > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

CSYNTH = $(VENDOR)/csynth/csynth.xml

csynth: $(CSYNTH)

$(CSYNTH): $(INPUTS)
	@$(DESIGN)
	@$(NEED_HLS)
	@rm -rf $(WORK)
	@$(DESCRIBE)
	$(call RUN,csynth)
	@test -f $(SOLUTION)/syn/report/csynth.xml \
	  || { echo "$(HLS_TOOL) left no report in $(SOLUTION)/syn"; exit 1; }
	@$(call KEEP,csynth,cp $(SOLUTION)/syn/report/csynth.xml $$new && cp -r $(SOLUTION)/syn/verilog $$new)
	@touch $@

# Verilog from elsewhere: make rtl VERILOG=folder
RTL_FROM = $(or $(VERILOG),$(VENDOR)/csynth/verilog)
rtl: $(if $(VERILOG),,$(CSYNTH))
	$(MODULE).ports $(RTL_FROM) --accelerator $(CHOSEN) --top $(TOP)
	@$(call KEEP,rtl,cp -r $(RTL_FROM)/. $$new)

needs-test-bench:
	@test -z "$(OP)" || { echo "operators have no test bench of their own: say make cosim without OP"; exit 1; }

RECORD = tb/record.py $(VENDOR)/recording --accelerator $(CHOSEN) \
  $(if $(BUNDLE),--bundle $(BUNDLE)) $(if $(TASK),--task $(TASK))
cosim: needs-test-bench $(CSYNTH)
	@$(NEED_HLS)
	PYTHONPATH=../model:../host $(RUN_PYTHON) $(RECORD)
	@$(DESCRIBE) --recording $(VENDOR)/recording
	$(call RUN,cosim)
	@$(call KEEP,cosim,cp -r $(SOLUTION)/sim/report/. $$new)

EXPORTED = $(VENDOR)/ip/component.xml
export: $(EXPORTED)

$(EXPORTED): $(CSYNTH)
	@$(NEED_HLS)
	$(call RUN,export)
	@test -f $(SOLUTION)/impl/ip/component.xml \
	  || { echo "$(HLS_TOOL) left no IP in $(SOLUTION)/impl/ip"; exit 1; }
	@$(call KEEP,ip,cp -r $(SOLUTION)/impl/ip/. $$new)
	@touch $@

report: $(CSYNTH)
	$(MODULE).reports --accelerator $(CHOSEN) --csynth $(CSYNTH) --out $(VENDOR)/report \
	  $(if $(ESTIMATE),--estimate $(ESTIMATE))
